// Lets open pages live: new values, growing ages, lists that follow. Pages are whole without it.
"use strict";
(() => {
  const words = document.body.dataset;
  const born = new Map();

  // Ages are counted from arrival on this machine's own clock: the two wall clocks need not agree.
  const remember = (element, ageMs) => born.set(element, performance.now() - ageMs);
  const collect = () => {
    born.clear();
    for (const element of document.querySelectorAll("[data-age]")) remember(element, Number(element.dataset.age));
  };
  const said = (ms) => {
    const s = Math.floor(Math.max(0, ms) / 1000);
    if (s < 2) return words.ageNow;
    if (s < 60) return words.ageS.replace("{n}", s);
    if (s < 3600) return words.ageMin.replace("{n}", Math.floor(s / 60));
    if (s < 172800) return words.ageH.replace("{n}", Math.floor(s / 3600));
    return words.ageD.replace("{n}", Math.floor(s / 86400));
  };
  const grow = () => {
    for (const [element, since] of born) {
      const text = said(performance.now() - since);
      if (element.textContent !== text) element.textContent = text;
    }
  };

  const write = (place, name, text) => {
    const element = place.querySelector("." + name);
    if (element && element.textContent !== text) element.textContent = text;
  };
  const renew = (news) => {
    let unseen = false;
    for (const item of news) {
      const places = document.querySelectorAll(`[data-point="${CSS.escape(item.point)}"]`);
      unseen ||= places.length === 0;
      for (const place of places) {
        write(place, "value", item.value);
        write(place, "unit", item.unit);
        write(place, "word", item.word);
        place.dataset.quality = item.quality;
        const age = place.querySelector(".age");
        if (age) remember(age, item.age_ms);
      }
    }
    grow();
    if (unseen) refresh("values");
  };

  // Parts of the page are taken from the page itself, asked for again: it is written in one place only.
  let fetching = false;
  let again = false;
  const refresh = async (what) => {
    const parts = [...document.querySelectorAll(`[data-live="${what}"]`)];
    if (parts.length === 0) return;
    if (fetching) { again = true; return; }
    fetching = true;
    try {
      const answer = await fetch(location.pathname + location.search, { headers: { accept: "text/html" } });
      if (!answer.ok || answer.redirected) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts) {
        const next = fresh.getElementById(part.id);
        const busy = part.contains(document.activeElement) && document.activeElement !== document.body;
        if (!next || busy || next.innerHTML === part.innerHTML) continue;
        for (const unfolded of part.querySelectorAll("details[id][open]")) {
          next.querySelector(`#${CSS.escape(unfolded.id)}`)?.setAttribute("open", "");
        }
        part.replaceChildren(...next.childNodes);
      }
      const count = fresh.querySelector(".places");
      const places = document.querySelector(".places");
      if (count && places && !places.contains(document.activeElement)) places.replaceChildren(...count.childNodes);
      collect();
    } catch {
      // The link is down; the next news tries again.
    } finally {
      fetching = false;
      if (again) { again = false; refresh(what); }
    }
  };

  collect();
  setInterval(grow, 1000);
  let source;
  const open = () => {
    source = new EventSource("/live");
    source.addEventListener("readings", (event) => renew(JSON.parse(event.data)));
    source.addEventListener("changed", (event) => refresh(event.data));
  };
  open();
  if (document.querySelector('[data-live="always"]')) setInterval(() => refresh("always"), 2000);
  // A page in the background keeps no stream open; one that comes back starts afresh.
  document.addEventListener("visibilitychange", () => {
    source.close();
    if (document.visibilityState === "visible") open();
  });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
})();
