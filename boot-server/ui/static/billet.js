// Billet's own script: what htmx does not do. Without it every page still works after a reload.
(() => {
  "use strict";
  const root = document.documentElement;
  const $$ = (selector, from = document) => Array.from(from.querySelectorAll(selector));

  // Theme: follows the system until somebody chooses; the choice is applied before the first paint.
  const stored = localStorage.getItem("theme");
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  const toggleTheme = () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  };

  // Times: the server writes UTC; readers get "3 min ago" in text and their own clock in the tooltip.
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"]];
  const tellTimes = () => {
    for (const node of $$("time[datetime][data-relative]")) {
      const at = new Date(node.dateTime);
      const seconds = Math.round((at - Date.now()) / 1000);
      const [size, unit] = units.find(([size]) => Math.abs(seconds) >= size) ?? [1, "second"];
      node.textContent = Math.abs(seconds) < 5 ? "just now" : relative.format(Math.trunc(seconds / size), unit);
      node.title = at.toLocaleString();
    }
  };

  // The stream: a lost connection is shown, and whatever was missed is fetched when it is back.
  let wasOffline = false;
  const offline = (is) => {
    document.body.classList.toggle("offline", is);
    if (!is && wasOffline) $$("[data-live]").forEach((live) => htmx.trigger(live, "billet:refresh"));
    wasOffline = is;
  };

  // What changed after the page was made and before its stream was open was told to nobody: where something is under way, it is asked once.
  let opened = false;
  const firstOpened = () => {
    if (!opened) $$("[data-live]").filter((live) => live.querySelector(".tone-work")).forEach((live) => htmx.trigger(live, "billet:refresh"));
    opened = true;
  };

  // A page that was left is kept by the browser for the way back, with its stream; of six such pages, all connections to this
  // server are taken, and the next page waits for a minute. So a stream ends with its page, and a page that comes back is
  // fetched anew: it missed something.
  const streams = [];
  const openStream = (url) => {
    streams.push(new EventSource(url, { withCredentials: true }));
    return streams.at(-1);
  };
  addEventListener("pagehide", () => streams.forEach((stream) => stream.close()));
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // Morphing keeps what the reader did: folds that are open, fields that are being typed in.
  const configureMorph = () => {
    if (!window.Idiomorph) return;
    Idiomorph.defaults.ignoreActiveValue = true;
    Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
      !(name === "open" && node.tagName === "DETAILS");
  };

  const size = (bytes) => {
    const steps = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
    const [unit, name] = steps.find(([unit]) => bytes >= unit) ?? [1, "B"];
    return `${(bytes / unit).toFixed(unit > 1e3 ? 1 : 0)} ${name}`;
  };

  // Upload: the file goes straight to the API, so that its progress can be shown.
  const upload = (form) => {
    const data = new FormData(form);
    const file = data.get("file");
    const box = document.getElementById("upload-progress");
    const [bar, text, problem] = ["progress", ".upload-text", ".upload-problem"].map((s) => box.querySelector(s));
    const button = form.querySelector("button[type=submit]");
    const tell = (message) => {
      problem.hidden = !message;
      bar.hidden = text.hidden = Boolean(message);
      problem.querySelector("p").textContent = message;
    };
    box.hidden = false;
    tell("");
    if (!(file instanceof File) || file.size === 0) return tell("Choose a file that is not empty.");
    const query = new URLSearchParams({ size: String(file.size) });
    for (const name of ["name", "version", "architecture", "sha256", "default_user", "datasource"]) {
      const value = String(data.get(name) ?? "").trim();
      if (value) query.set(name, value);
    }
    const request = new XMLHttpRequest();
    const begun = Date.now();
    request.open("POST", `/api/v1/images/upload?${query}`);
    request.upload.onprogress = (event) => {
      bar.max = event.total || file.size;
      bar.value = event.loaded;
      const rate = event.loaded / Math.max(1, (Date.now() - begun) / 1000);
      const left = Math.ceil((bar.max - event.loaded) / Math.max(1, rate));
      text.textContent = event.loaded >= bar.max
        ? "Received. Checking and storing…"
        : `${size(event.loaded)} of ${size(bar.max)} · ${size(rate)}/s · ${left} s left`;
    };
    request.onload = () => {
      button.disabled = false;
      if (request.status >= 200 && request.status < 300) {
        text.textContent = "Stored.";
        location.assign("/images");
        return;
      }
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* not a problem document: the status is told */ }
      tell([answer.message ?? `The server answered ${request.status}.`, answer.hint].filter(Boolean).join(" — "));
    };
    request.onerror = () => {
      button.disabled = false;
      tell("The connection was lost. Nothing was stored; try again.");
    };
    button.disabled = true;
    request.send(file);
  };

  const copy = async (button) => {
    const text = button.parentElement.querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (!button) return;
    if (button.dataset.do === "theme") toggleTheme();
    if (button.dataset.do === "copy") copy(button);
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.id === "upload") {
      event.preventDefault();
      upload(form);
    }
  });

  // A session that ended answers with the sign-in page: show that instead of swapping it into a fragment. A terminal stays:
  // it says itself why it is over, and what was printed can still be read.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (new URL(event.detail.xhr.responseURL || location.href).pathname === "/login") {
      event.detail.shouldSwap = false;
      if (!document.getElementById("terminal")) location.reload();
    }
  });
  document.addEventListener("htmx:afterSwap", tellTimes);
  document.addEventListener("htmx:sseOpen", () => { offline(false); firstOpened(); });
  document.addEventListener("htmx:sseError", () => offline(true));
  // Registered before htmx looks at the page.
  document.addEventListener("DOMContentLoaded", () => {
    htmx.createEventSource = openStream;
    configureMorph();
    tellTimes();
    setInterval(tellTimes, 5000);
  });
})();
