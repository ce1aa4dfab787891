"""The panel as a browser without JavaScript meets it: cookies, form tokens, redirects."""

import hashlib
import html
import html.parser
import http.client
import re
import ssl
import urllib.parse

NAME, PASSWORD = "Jeanne Vidal", "le marché du jeudi matin"


class Fields(html.parser.HTMLParser):
    """The hidden fields of a page's forms, by the forms' addresses."""

    def __init__(self, page: str):
        super().__init__()
        self.forms: dict[str, dict[str, list[str]]] = {}
        self._form: dict[str, list[str]] | None = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        if tag == "form":
            self._form = self.forms.setdefault(told.get("action", ""), {})
        elif tag == "input" and self._form is not None and told.get("name"):
            if told.get("type") == "hidden" or "checked" in told:
                self._form.setdefault(told["name"], []).append(told.get("value", ""))

    def handle_endtag(self, tag):
        if tag == "form":
            self._form = None


class Panel:
    def __init__(self, port: int):
        self._port = port
        self._cookies: dict[str, str] = {}
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self.fingerprint = ""
        self.path = ""

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """One request, redirects followed."""
        for _ in range(6):
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=60, context=self._context)
            try:
                headers = {"Accept-Language": "fr", "Cookie": "; ".join(f"{k}={v}" for k, v in self._cookies.items())}
                if body is not None:
                    headers["Content-Type"] = "application/x-www-form-urlencoded"
                connection.request(method, path, body, headers)
                self.fingerprint = hashlib.sha256(connection.sock.getpeercert(binary_form=True)).hexdigest()
                answer = connection.getresponse()
                page = answer.read().decode()
            except (ssl.SSLError, http.client.HTTPException) as cause:
                raise OSError(str(cause)) from cause
            finally:
                connection.close()
            for cookie in answer.headers.get_all("Set-Cookie") or []:
                name, _, value = cookie.split(";")[0].partition("=")
                self._cookies[name] = value
            self.path = path
            if answer.status not in (302, 303, 307, 308):
                return answer.status, page
            method, path, body = "GET", answer.headers["Location"], None
        raise AssertionError(f"{path}: redirected without end")

    def see(self, path: str) -> str:
        status, page = self.ask("GET", path)
        if status != 200:
            raise AssertionError(f"{path} answers {status}: {words(page)[:300]}")
        return page

    def fill(self, page: str, action: str, **fields) -> tuple[int, str]:
        """Sends a form of a page, with its hidden and ticked fields and these."""
        form = Fields(page).forms[action] | {name: [value] for name, value in fields.items()}
        pairs = [(name, value) for name, values in form.items() for value in values]
        return self.ask("POST", action, urllib.parse.urlencode(pairs))

    def claim(self, code: str):
        """The mayor's first visit."""
        page = self.see("/")
        if self.path != "/claim":
            raise AssertionError(f"a new box shows {self.path}, not /claim")
        status, page = self.fill(page, "/claim", code=code, name=NAME, password=PASSWORD, again=PASSWORD)
        if status != 200 or self.path != "/":
            raise AssertionError(f"the claim leads to {self.path} with {status}: {words(page)[:300]}")

    def sign_in(self):
        page = self.see("/sign-in")
        status, page = self.fill(page, "/sign-in", name=NAME, password=PASSWORD)
        if status != 200 or self.path != "/":
            raise AssertionError(f"signing in leads to {self.path} with {status}: {words(page)[:300]}")

    def announce(self, text: str):
        """Writes a text and sends it to every zone."""
        page = self.see("/announcements")
        status, page = self.fill(page, "/announcements", text=text, do="send")
        if status != 200 or "sent=" not in self.path:
            raise AssertionError(f"the announcement leads to {self.path} with {status}: {words(page)[:400]}")


def words(page: str) -> str:
    """What a page says, without its marks, apostrophes as on a keyboard."""
    text = re.sub(r"<(style|script|svg).*?</\1>", " ", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).replace("’", "'").split())
