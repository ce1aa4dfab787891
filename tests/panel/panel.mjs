// The mayor's job done in a real browser, against a running panel.
//
// CLOCHER_URL       the panel's address, as `clocher demo` prints it
// CLOCHER_CODE      the claim code of the box, not used yet
// CLOCHER_SHOTS     a folder for screenshots; none are taken without it
// CLOCHER_REFERENCE a folder for the picture of the README, tests/panel/reference; not taken without it
// CHROMIUM          the browser, /usr/bin/chromium by default
//
// Each sentence is a test; the first that fails ends the run with its name and a screenshot.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const address = need("CLOCHER_URL").replace(/\/$/, "");
const code = need("CLOCHER_CODE");
const shots = process.env.CLOCHER_SHOTS;
const name = "Jeanne Vidal";
const password = "le marché du jeudi matin";

const PHONE = { width: 360, height: 800 };
const DESK = { width: 1280, height: 900 };

function need(variable) {
  const value = process.env[variable];
  if (!value) {
    console.error(`${variable} is not set; see the head of ${import.meta.filename}`);
    process.exit(64);
  }
  return value;
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});

/** A browser of its own: size, scheme, with or without JavaScript. What goes wrong in its console is kept. */
async function visitor({ size = PHONE, dark = false, script = true, state } = {}) {
  const context = await browser.newContext({
    viewport: size,
    colorScheme: dark ? "dark" : "light",
    javaScriptEnabled: script,
    ignoreHTTPSErrors: true,
    locale: "fr-FR",
    reducedMotion: "reduce",
    storageState: state,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    // A refused form is answered with 4xx on purpose, and the browser notes it.
    if (message.type() === "error" && !/status of 4\d\d/.test(message.text())) faults.push(message.text());
  });
  return { context, page, faults };
}

async function shoot(page, as) {
  if (shots === undefined) return;
  await picture(page, shots, as, !as.includes("first-view"));
}

/** The whole page is taken in a window as high as the page, so that what is fixed below stays below. */
async function picture(page, folder, as, whole) {
  mkdirSync(folder, { recursive: true });
  const size = page.viewportSize();
  if (whole) await page.setViewportSize({ ...size, height: await page.evaluate(() => document.documentElement.scrollHeight) });
  await page.screenshot({ path: join(folder, `${as}.png`) });
  if (whole) await page.setViewportSize(size);
}

const go = (page, path) => page.goto(address + path, { waitUntil: "load" });
const button = (page, word) => page.getByRole("button", { name: word });

/** The claim, or a sign-in when the box has been claimed by an earlier sentence. */
async function signIn(page) {
  await go(page, "/sign-in");
  await page.getByLabel("Nom", { exact: true }).fill(name);
  await page.getByLabel("Mot de passe", { exact: true }).fill(password);
  await button(page, "Entrer").click();
  await page.waitForURL(address + "/");
}

/** Waits until every device has said something, as they do within some seconds of the start. */
async function everyDeviceSpoke(page) {
  await page.locator(".card").first().waitFor();
  await page.waitForFunction(() => document.querySelector(".card .silent") === null, undefined, { timeout: 60_000 });
  // A flow needs two pulses.
  await page.locator('[data-point="water/hall/flow"]').waitFor({ timeout: 60_000 });
}

/** Presses Tab until what has the focus is called `word`; a keyboard alone must get everywhere. */
async function tabTo(page, word) {
  for (let press = 0; press < 80; press += 1) {
    await page.keyboard.press("Tab");
    const here = page.locator(":focus");
    if ((await here.count()) === 0) continue;
    const said = await here.evaluate((element) => {
      const label = element.labels?.[0]?.innerText ?? "";
      return `${element.innerText ?? ""} ${label} ${element.getAttribute("aria-label") ?? ""}`;
    });
    if (said.includes(word)) {
      const outline = await here.evaluate((element) => {
        const shown = (e) => e && getComputedStyle(e).outlineStyle !== "none" && parseFloat(getComputedStyle(e).outlineWidth) >= 2;
        return shown(element) || shown(element.closest("label"));
      });
      assert.ok(outline, `the focus on "${word}" is seen`);
      return here;
    }
  }
  assert.fail(`"${word}" is not reached by Tab`);
}

/** What a page owes to thumbs and eyes: nothing wider than the screen, targets of 44 px, contrast of 4.5. */
async function comfortable(page, where) {
  assert.deepEqual(await discomforts(page, where), []);
}

async function discomforts(page, where) {
  const findings = await page.evaluate(() => {
    const found = [];
    const root = document.documentElement;
    if (root.scrollWidth > root.clientWidth) found.push(`wider than the screen by ${root.scrollWidth - root.clientWidth} px`);
    const visible = (element) => element.checkVisibility() && element.getClientRects().length > 0;
    const inText = (element) => element.closest("p, li") && element.tagName === "A" && getComputedStyle(element).display === "inline";
    for (const target of document.querySelectorAll("a, button, summary, select, textarea, input:not([type=hidden])")) {
      if (!visible(target) || target.closest(".hidden") || target.classList.contains("skip") || inText(target)) continue;
      const box = (target.type === "radio" || target.type === "checkbox" ? target.closest("label") : target).getBoundingClientRect();
      if (box.height < 43.5 || box.width < 43.5) {
        found.push(`${target.tagName} "${target.innerText ?? target.name}" is ${Math.round(box.width)} by ${Math.round(box.height)} px`);
      }
    }
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([r, g, b]) => {
      const part = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
      return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const behind = (element) => {
      for (let e = element; e; e = e.parentElement) {
        const colour = rgba(getComputedStyle(e).backgroundColor);
        if (colour[3] === 255) return colour;
      }
      return [255, 255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode.textContent.trim();
      const element = walker.currentNode.parentElement;
      if (!text || !visible(element) || element.closest(".hidden, script") || getComputedStyle(element).visibility === "hidden") continue;
      const style = getComputedStyle(element);
      const front = rgba(element.closest("svg") ? style.fill : style.color);
      const [high, low] = [luminance(front), luminance(behind(element))].sort((a, b) => b - a);
      const contrast = (high + 0.05) / (low + 0.05);
      if (contrast < 4.5) found.push(`"${text.slice(0, 30)}" has a contrast of ${contrast.toFixed(2)}`);
    }
    return found;
  });
  return findings.map((finding) => `${where}: ${finding}`);
}

const PAGES = [
  ["home", "/"],
  ["announcements", "/announcements"],
  ["conditions", "/conditions"],
  ["demonstration", "/demonstration"],
  ["data", "/data"],
  ["access", "/access"],
  ["consents", "/consents"],
  ["erase", "/erase"],
  ["accounts", "/accounts"],
  ["account", "/account"],
  ["about", "/about"],
];

const sentences = [];
const test = (sentence, work) => sentences.push([sentence, work]);

test("the first visitor claims the box with its code, without JavaScript", async ({ page }) => {
  await go(page, "/");
  assert.equal(new URL(page.url()).pathname, "/claim");
  await comfortable(page, "claim");
  await shoot(page, "claim-360");
  await page.getByLabel("Code du boîtier").fill("AAAA-AAAA-AAAA");
  await page.getByLabel("Nom", { exact: true }).fill(name);
  await page.getByLabel("Mot de passe choisi").fill(password);
  await page.getByLabel("Le même, une seconde fois").fill(password);
  await button(page, "Créer le compte").click();
  await page.getByText("Ce n’est pas le code de ce boîtier").waitFor();
  await shoot(page, "claim-wrong-360");
  await page.getByLabel("Code du boîtier").fill(code.toLowerCase());
  await page.getByLabel("Mot de passe choisi").fill(password);
  await page.getByLabel("Le même, une seconde fois").fill(password);
  await button(page, "Créer le compte").click();
  await page.waitForURL(address + "/");
  assert.match(await page.title(), /^Accueil – Mairie /);
});

test("the first page tells of each device what people ask for, and folds the rest", async () => {
  const { context, page, faults } = await visitor();
  await signIn(page);
  await everyDeviceSpoke(page);
  const shown = await page.locator(".card").evaluateAll((cards) =>
    cards.map((card) => [card.querySelector("h3").textContent, [...card.querySelectorAll(":scope > .values .unit")].map((unit) => unit.textContent)]),
  );
  assert.deepEqual(Object.fromEntries(shown), {
    "Air de la salle": ["ppm", "°C"],
    "Électricité de la salle": ["VA", "kWh"],
    "Pompe à chaleur": ["W", "kWh"],
    "Eau de la salle": ["L", "L/h"],
    "Logement du gardien": ["°C", "%"],
  });
  const linky = page.locator(".card", { hasText: "Électricité de la salle" });
  const breaker = linky.locator('[data-point$="/breaker"]');
  assert.ok(!(await breaker.isVisible()));
  await linky.getByText("Autres mesures").click();
  await breaker.waitFor();
  assert.equal(await breaker.locator(".value").textContent(), "Fermé");
  const units = await page.locator(".unit").allTextContents();
  assert.deepEqual(units.filter((unit) => /[{}.[\]]/.test(unit)), [], "no unit is written as machines do");
  await comfortable(page, "home, unfolded");
  await shoot(page, "home-unfolded-360");
  if (process.env.CLOCHER_REFERENCE !== undefined) {
    await linky.getByText("Autres mesures").click();
    await page.mouse.move(0, 0);
    await page.evaluate(() => document.activeElement.blur());
    await picture(page, process.env.CLOCHER_REFERENCE, "home-360-light", true);
  }
  assert.deepEqual(faults, []);
  await context.close();
});

test("on a slow link the first page is there within seconds, and is light", async () => {
  const { context: fast, page: door } = await visitor();
  await signIn(door);
  await everyDeviceSpoke(door);
  const state = await fast.storageState();
  await fast.close();

  const { context, page } = await visitor({ state });
  const devtools = await context.newCDPSession(page);
  await devtools.send("Network.enable");
  // 40 kB/s and 400 ms: a village on the edge of 3G.
  await devtools.send("Network.emulateNetworkConditions", { offline: false, latency: 400, downloadThroughput: 40_000, uploadThroughput: 40_000 });
  let weight = 0;
  devtools.on("Network.loadingFinished", (loaded) => (weight += loaded.encodedDataLength));
  const started = performance.now();
  await page.goto(address + "/", { waitUntil: "load" });
  const took = performance.now() - started;
  console.log(`        ${weight} bytes, ${Math.round(took)} ms`);
  assert.ok(weight > 1_000 && weight <= 30_000, `${weight} bytes`);
  assert.ok(took < 5_000, `${Math.round(took)} ms`);
  await context.close();
});

test("every page is comfortable on a phone and at a desk, light and dark", async () => {
  const findings = [];
  for (const [label, size] of [["360", PHONE], ["1280", DESK]]) {
    for (const dark of [false, true]) {
      const { context, page, faults } = await visitor({ size, dark });
      await signIn(page);
      const point = await page.locator("[data-point]").first().getAttribute("href");
      const counter = (await page.locator('[data-point$="index"], [data-point*="energy"]').first().getAttribute("href", { timeout: 2_000 }).catch(() => null)) ?? point;
      const pages = [...PAGES, ["counter-day", counter], ["counter-month", `${counter}?span=month`], ["point", point], ["point-week", `${point}?span=week`], ["point-month", `${point}?span=month`]];
      for (const [as, path] of pages) {
        const answer = await go(page, path);
        if (answer.status() === 404) continue;
        assert.equal(answer.status(), 200, path);
        const scheme = dark ? "dark" : "light";
        if (as === "home") await shoot(page, `first-view-${label}-${scheme}`);
        await shoot(page, `${as}-${label}-${scheme}`);
        findings.push(...(await discomforts(page, `${as} at ${label} px, ${scheme}`)));
      }
      findings.push(...faults);
      await context.close();
    }
  }
  assert.deepEqual(findings, []);
});

test("a page enlarged twice is still read without scrolling sideways", async () => {
  const { context, page } = await visitor({ size: { width: 200, height: 400 } });
  await signIn(page);
  for (const [as, path] of PAGES) {
    if ((await go(page, path)).status() === 404) continue;
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    // Source: WCAG 2.1, 1.4.10 asks for 320 px; half a phone is more than it asks.
    assert.ok(wider <= 0, `${as} is wider than the screen by ${wider} px`);
  }
  await context.close();
});

test("an announcement is written, listened to, sent and stopped without JavaScript", async () => {
  const { context, page } = await visitor({ script: false });
  await signIn(page);
  const answer = await go(page, "/announcements");
  if (answer.status() === 404) return context.close();
  await page.getByLabel("Texte de l’annonce").fill("Essai des haut-parleurs, ne tenez pas compte de cette annonce.");
  await button(page, "Écouter").click();
  const sound = await page.locator("audio").getAttribute("src");
  assert.equal(await page.getByLabel("Texte de l’annonce").inputValue(), "Essai des haut-parleurs, ne tenez pas compte de cette annonce.");
  const heard = await context.request.get(address + sound, { ignoreHTTPSErrors: true });
  assert.equal(heard.headers()["content-type"], "audio/wav");
  assert.equal((await heard.body()).subarray(0, 4).toString(), "RIFF");
  await shoot(page, "announcement-listen-360");
  await button(page, "Diffuser").click();
  await page.getByText("C’est parti.").waitFor();
  await shoot(page, "announcement-sent-360");
  const stop = button(page, "Arrêter");
  if ((await stop.count()) > 0) {
    await stop.first().click();
    await page.getByRole("status").waitFor();
  }
  await context.close();
});

test("an announcement is heard to its end in each zone, and the open page tells it", async () => {
  const { context, page, faults } = await visitor();
  await signIn(page);
  await go(page, "/announcements");
  const text = "Le marché ouvre à huit heures sur la place.";
  await page.getByLabel("Texte de l’annonce").fill(text);
  await button(page, "Écouter").click();
  const lasts = await page.locator("audio").evaluate(
    (audio) => new Promise((known) => (audio.readyState > 0 ? known(audio.duration) : audio.addEventListener("loadedmetadata", () => known(audio.duration)))),
  );
  assert.ok(lasts > 1, `the preview lasts ${lasts} s`);
  await button(page, "Diffuser").click();
  for (const zone of ["Le bourg", "Hameau des Granges"]) {
    const entry = page.locator("#journal li", { hasText: text }).filter({ hasText: zone });
    await entry.filter({ hasText: "entendu jusqu’au bout" }).waitFor({ timeout: 90_000 });
  }
  await comfortable(page, "announcements with a journal");
  await shoot(page, "announcements-journal-360");
  assert.deepEqual(faults, []);
  await context.close();
});

test("an alert asks for a second gesture, and can be taken back", async () => {
  const { context, page } = await visitor();
  await signIn(page);
  if ((await go(page, "/announcements")).status() === 404) return context.close();
  await page.getByLabel("Texte de l’annonce").fill("Crue : rejoignez les hauteurs.");
  await page.getByLabel("Alerte").check();
  await button(page, "Diffuser").click();
  await page.getByRole("heading", { name: "Diffuser cette alerte" }).waitFor();
  await comfortable(page, "the confirmation of an alert");
  await shoot(page, "alert-confirm-360");
  await button(page, "Modifier le texte").click();
  assert.equal(await page.getByLabel("Texte de l’annonce").inputValue(), "Crue : rejoignez les hauteurs.");
  await context.close();
});

test("a keyboard alone goes from the door to an announcement", async () => {
  const { context, page } = await visitor({ size: DESK });
  await go(page, "/sign-in");
  await tabTo(page, "Aller au contenu");
  await tabTo(page, "Nom");
  await page.keyboard.type(name);
  await tabTo(page, "Mot de passe");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.waitForURL(address + "/");
  await tabTo(page, "Autres mesures");
  await page.keyboard.press("Enter");
  await tabTo(page, "Organe de coupure");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Organe de coupure" }).waitFor();
  await go(page, "/");
  await tabTo(page, "Aller au contenu");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement?.id === "main");
  await tabTo(page, "Diffuser une annonce");
  await page.keyboard.press("Enter");
  await page.waitForURL(address + "/announcements");
  await tabTo(page, "Texte de l’annonce");
  await page.keyboard.type("Bonjour à tous.");
  await tabTo(page, "Écouter");
  await page.keyboard.press("Enter");
  await page.locator("audio").waitFor();
  await context.close();
});

test("values and ages follow by themselves when the browser has JavaScript", async () => {
  const { context, page, faults } = await visitor({ size: DESK });
  await signIn(page);
  const age = page.locator("[data-age]").first();
  const before = await age.textContent();
  await page.waitForFunction((text) => document.querySelector("[data-age]")?.textContent !== text, before);
  // The tap leaks: a litre every six seconds.
  const index = '[data-point="water/hall/index"] .value';
  const litres = await page.locator(index).textContent();
  await page.waitForFunction(([place, text]) => document.querySelector(place)?.textContent !== text, [index, litres], { timeout: 30_000 });
  assert.deepEqual(faults, []);
  await context.close();
});

test("somebody added with a code chooses a password and sees only what their role may", async () => {
  const { context, page } = await visitor();
  await signIn(page);
  await go(page, "/accounts");
  const who = `Visiteur ${Date.now() % 100_000}`;
  await page.getByLabel("Nom", { exact: true }).fill(who);
  await page.getByLabel("Lecture").check();
  await button(page, "Ajouter et donner un code").click();
  const given = await page.locator(".big-code").textContent();
  await shoot(page, "account-code-360");
  await context.close();

  const { context: theirs, page: other } = await visitor({ script: false });
  await go(other, "/sign-in");
  await other.getByLabel("Nom", { exact: true }).fill(who);
  await other.getByLabel("Mot de passe", { exact: true }).fill(given);
  await button(other, "Entrer").click();
  await other.getByLabel("Mot de passe choisi").fill("une phrase à moi seul");
  await other.getByLabel("Le même, une seconde fois").fill("une phrase à moi seul");
  await button(other, "Enregistrer").click();
  await other.waitForURL(address + "/");
  assert.equal(await other.getByRole("link", { name: "Comptes" }).count(), 0);
  assert.equal((await go(other, "/accounts")).status(), 403);
  await theirs.close();
});

test("after an outage of the link, nothing is lost and all has arrived", async () => {
  const { context, page, faults } = await visitor();
  await signIn(page);
  await go(page, "/demonstration");
  await page.getByText("sont toutes arrivées").waitFor({ timeout: 120_000 });
  const figures = await page.locator(".figures > div").evaluateAll((all) =>
    Object.fromEntries(all.map((one) => [one.querySelector("dt").textContent.trim(), one.querySelector("dd").textContent])),
  );
  assert.equal(figures.Perdues, "0");
  assert.notEqual(figures.Prises, "0");
  assert.equal(figures["Livrées depuis"], figures.Prises);
  await shoot(page, "demonstration-after-360");
  assert.deepEqual(faults, []);
  await context.close();
});

test("the register tells what the central server took", async ({ page }) => {
  await signIn(page);
  await go(page, "/access");
  await page.getByRole("rowheader", { name: "Agglo du Lauquet" }).first().waitFor();
  assert.match(await page.locator("tbody tr").first().textContent(), /mesure/);
});

test("one place says who has received what, and up to when", async ({ page }) => {
  await signIn(page);
  await page.getByRole("link", { name: "Savoir où vont les données" }).click();
  await page.getByRole("heading", { name: "Données et accès", level: 1 }).waitFor();
  await page.getByText(/A tout reçu jusqu’à\s\d+\sh\s\d\d\./).waitFor();
  const said = await page.locator("main").innerText();
  assert.doesNotMatch(said, /peer|cursor|curseur|\bseq\b/i, "no jargon");
  // French typography: no ordinary space before a double mark, none inside the quotation marks.
  assert.doesNotMatch(said, /[^\s] [:;!?»]|« /);
  await page.getByRole("link", { name: "Voir le registre" }).click();
  await page.waitForURL(`${address}/access`);
});

test("a consent is withdrawn and recorded anew by keyboard alone, without JavaScript", async () => {
  const { context, page } = await visitor({ script: false });
  await signIn(page);
  await go(page, "/consents");
  const flat = page.locator("li.sheet", { hasText: "Logement du gardien" }).first();
  await flat.getByText("Part vers Agglo du Lauquet.").waitFor();
  await tabTo(page, "Retirer l’accord");
  await page.keyboard.press("Enter");
  await tabTo(page, "Qui le demande");
  await page.keyboard.type("M. Lagarde");
  await comfortable(page, "a withdrawal");
  await tabTo(page, "Retirer maintenant");
  await page.keyboard.press("Enter");
  await page.getByRole("status").getByText("Plus rien ne part").waitFor();
  await flat.getByText("Ne part pas vers Agglo du Lauquet.").waitFor();
  await shoot(page, "consent-withdrawn-360");

  await tabTo(page, "Noter un accord");
  await page.keyboard.press("Enter");
  await flat.getByLabel("Qui donne son accord").fill("M. Lagarde");
  await flat.getByLabel("Date du papier signé").fill("2026-11-02");
  await flat.getByLabel("Où est le papier signé").fill("secrétariat, classeur RGPD");
  await comfortable(page, "a consent");
  await shoot(page, "consent-form-360");
  await flat.getByRole("button", { name: "Noter l’accord" }).click();
  await page.getByRole("status").getByText("L’accord est noté").waitFor();
  await flat.getByText("Accord de M. Lagarde du lundi 2 novembre 2026").waitFor();
  assert.equal(await page.getByText("À la demande de M. Lagarde.").count(), 1);
  await comfortable(page, "the record of consents");
  await shoot(page, "consent-recorded-360");
  await context.close();
});

test("what the flat measured is erased after a page that says what goes and who has a copy, without JavaScript", async () => {
  const { context, page } = await visitor({ script: false });
  await signIn(page);
  await go(page, "/erase");
  await page.getByLabel("Appareil ou mesure").selectOption({ label: "Logement du gardien – tout l’appareil" });
  await button(page, "Voir ce qui s’effacera").click();
  await page.getByRole("heading", { name: "Effacer tout ce qu’a mesuré" }).waitFor();
  await page.getByText("C’est pour toujours").waitFor();
  await page.locator(".points .points", { hasText: "Agglo du Lauquet" }).waitFor();
  await comfortable(page, "before erasing");
  await shoot(page, "erase-question-360");
  await button(page, "Oui, effacer pour toujours").click();
  await page.waitForURL(`${address}/erase`);
  while ((await page.getByText("Effacement en cours").count()) > 0) await page.getByRole("link", { name: "Actualiser" }).click();
  await page.getByRole("status").getByText(/Logement du gardien, en entier\s: .*effacées?\./).waitFor();
  await comfortable(page, "erased");
  await shoot(page, "erased-360");
  await context.close();
});

test("a leak is found, is told on the first page, and somebody has seen it", async () => {
  const { context, page, faults } = await visitor();
  await signIn(page);
  // The demonstration counts three minutes for hours.
  const sentence = page.locator("#state", { hasText: "L’eau coule" });
  await sentence.waitFor({ timeout: 240_000 });
  await page.getByRole("link", { name: "Voir quoi faire" }).click();
  const leak = page.locator(".condition", { hasText: "L’eau coule" });
  await leak.getByText("Vérifiez robinets").waitFor();
  await comfortable(page, "a leak");
  await shoot(page, "leak-360");
  await leak.getByRole("button", { name: "J’ai vu" }).click();
  await leak.getByText(`Vu par ${name}`).waitFor();
  await shoot(page, "leak-seen-360");
  await go(page, "/");
  await shoot(page, "home-leak-360");
  assert.deepEqual(faults, []);
  await context.close();
});

let failed = 0;
for (const [sentence, work] of sentences) {
  const bystander = await visitor({ script: false });
  const started = performance.now();
  try {
    await work(bystander);
    console.log(`ok      ${sentence} (${Math.round(performance.now() - started)} ms)`);
  } catch (error) {
    failed += 1;
    console.error(`FAILED  ${sentence}\n${error.stack ?? error}`);
    for (const context of browser.contexts()) {
      for (const [n, page] of context.pages().entries()) await shoot(page, `failed-${sentences.findIndex(([s]) => s === sentence)}-${n}`).catch(() => {});
    }
  }
  for (const context of browser.contexts()) await context.close();
  // Without an owner there is nothing more to try.
  if (failed > 0 && sentence === sentences[0][0]) break;
}
await browser.close();
process.exit(failed === 0 ? 0 : 1);
