// Keeps an open page up to date: the server says that it has changed, and its parts are fetched again.
// Without this script every page is complete, and is brought up to date by loading it again.
"use strict";

// More lines and characters are not kept in the page, so that a log without end stays usable.
const LINES = 5000;
const CHARACTERS = 2_000_000;
const away = document.getElementById("away");
const log = document.getElementById("log") || document.getElementById("output");
let source = null;
let last = null; // The id of the last line that came.
let coming = []; // Lines that came and are not in the page yet.
let comingCharacters = 0;
let shownCharacters = log ? log.textContent.length : 0;
let waiting = null;
let fetching = false;
let again = false;
let missed = null;

// Brings the parts of the page up to date that carry `data-fresh`.
async function refresh() {
  if (!document.querySelector("[data-fresh]")) return;
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected && new URL(answer.url).pathname !== location.pathname) {
      location.reload(); // The session has ended.
      return;
    }
    if (answer.ok) {
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-fresh]")) {
        const fresh = next.getElementById(part.id);
        if (fresh && fresh.innerHTML !== part.innerHTML) replace(part, fresh);
      }
      if (document.title !== next.title) document.title = next.title;
    }
  } catch {
    // The stream of events says it too, and its return brings the page up to date.
  } finally {
    fetching = false;
    if (again) {
      again = false;
      soon();
    }
  }
}

// Whoever is on a link or a button stays there.
function replace(part, fresh) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const same = (other) =>
    focused && other.tagName === focused.tagName && other.textContent === focused.textContent &&
    other.getAttribute("href") === focused.getAttribute("href");
  part.replaceChildren(...fresh.childNodes);
  if (focused) [...part.querySelectorAll("a, button, [tabindex]")].find(same)?.focus();
}

function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(refresh, 50);
}

// Many lines at once change the page once.
function add(text, name, title) {
  const line = document.createElement("span");
  if (name) line.className = name;
  if (title) line.title = title;
  line.append(...text);
  if (coming.length === 0) setTimeout(show, 50);
  coming.push(line);
  comingCharacters += line.textContent.length;
  while (coming.length > LINES || (comingCharacters > CHARACTERS && coming.length > 1)) {
    comingCharacters -= coming.shift().textContent.length;
  }
}

function show() {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(...coming);
  shownCharacters += comingCharacters;
  coming = [];
  comingCharacters = 0;
  while (log.childElementCount > LINES || (shownCharacters > CHARACTERS && log.childElementCount > 1)) {
    shownCharacters -= log.firstElementChild.textContent.length;
    log.firstElementChild.remove();
  }
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function quiet(text) {
  const part = document.createElement("span");
  part.className = "quiet";
  part.textContent = text;
  return part;
}

function listen() {
  const path = document.body.dataset.live;
  if (!path || source) return;
  const address = new URL(path, location.href);
  if (last !== null) address.searchParams.set("from", last);
  source = new EventSource(address);
  source.onopen = () => {
    clearTimeout(missed);
    missed = null;
    away.hidden = true;
  };
  source.addEventListener("changed", soon);
  source.onmessage = (event) => {
    last = event.lastEventId;
    add([event.data, "\n"], event.data.startsWith("[") ? "head" : event.data.startsWith("  ") ? "out" : "");
  };
  source.addEventListener("output", (event) => {
    last = event.lastEventId;
    const said = JSON.parse(event.data);
    document.getElementById("empty").hidden = true;
    add([quiet(`${said.time.slice(11, 19)} ${said.name} `), said.text, "\n"],
      said.stream === "stderr" ? "err" : "out", said.instance);
  });
  source.addEventListener("end", (event) => {
    last = event.lastEventId;
    soon();
  });
  source.onerror = () => {
    // A stream ends by itself now and then, and another one begins at once.
    missed ??= setTimeout(() => {
      away.hidden = false;
    }, 2500);
    // After an answer that is no stream, such as a proxy's 502, a browser gives up.
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(listen, 2000);
    }
  };
}

// A browser opens few connections to one host, and those who do not look need none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else {
    listen();
  }
});

if (log) log.scrollTop = log.scrollHeight;
if (!document.hidden) listen();
setInterval(() => {
  if (!document.hidden && away.hidden) refresh();
}, 15000);
