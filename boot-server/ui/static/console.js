// The console: a terminal over a WebSocket, and the player of recordings. The server decides who may type; this shows it.
(() => {
  "use strict";
  const theme = {
    background: "#10141a", foreground: "#d7dde8", cursor: "#ff8a4c", selectionBackground: "#33415c",
  };

  // xterm.js makes style elements and style attributes, which this server's content security policy forbids. On these
  // pages both are put in by script instead, which it allows. (Its option `documentOverride` does not reach all places
  // where it makes them.)
  const strictElements = () => {
    const original = document.createElement.bind(document);
    document.createElement = (tag, ...rest) => {
      if (tag === "style") {
        const sheet = new CSSStyleSheet();
        document.adoptedStyleSheets.push(sheet);
        const stand = original("span");
        stand.hidden = true;
        Object.defineProperty(stand, "textContent", { get: () => "", set: (text) => sheet.replaceSync(text) });
        return stand;
      }
      const element = original(tag, ...rest);
      if (tag === "span") {
        element.setAttribute = (name, value) => {
          if (name === "style") element.style.cssText = value;
          else Element.prototype.setAttribute.call(element, name, value);
        };
      }
      return element;
    };
  };

  const terminal = (box, options) => {
    const term = new Terminal({
      theme, fontSize: 13, scrollback: 5000, cursorBlink: false,
      fontFamily: 'ui-monospace, Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace', ...options,
    });
    const fit = new FitAddon.FitAddon();
    term.loadAddon(fit);
    term.open(box);
    fit.fit();
    new ResizeObserver(() => fit.fit()).observe(box);
    return term;
  };

  const row = (...parts) => {
    const item = document.createElement("li");
    item.append(...parts);
    return item;
  };
  const text = (tag, className, content) => {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = content;
    return element;
  };

  // ---- live ----

  const live = (box) => {
    const $ = (id) => document.getElementById(id);
    const [state, notice, problem, take, release, again, viewers] = ["state", "notice", "problem", "take", "release",
      "again", "viewers"].map((name) => $(`console-${name}`));
    const mayWrite = box.dataset.mayWrite === "true";
    const term = terminal(box, {});
    const encoder = new TextEncoder();
    let socket = null;
    let me = null;
    let writer = null;
    let pressed = false;
    let over = false;
    let pause = 1000;

    const tell = (sentence) => { notice.textContent = sentence; };
    const trouble = (sentence) => {
      problem.hidden = !sentence;
      problem.querySelector("p").textContent = sentence ?? "";
    };
    const badge = (word, tone) => {
      state.textContent = word;
      state.className = `badge plain ${tone}`;
    };
    const ask = (type) => { if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type })); };

    const end = async (session) => {
      const answer = await fetch(`/api/v1/console/sessions/${session}`, { method: "DELETE" });
      if (!answer.ok) tell((await answer.json()).message);
    };

    const presence = ({ you, console: shown }) => {
      me = you;
      writer = shown.sessions.find((session) => session.writes) ?? null;
      const tones = { connected: "tone-good", connecting: "tone-work", failed: "tone-bad", idle: "" };
      badge(shown.state, tones[shown.state] ?? "");
      trouble(shown.state === "failed" ? shown.problem : null);
      const mine = writer?.session === me;
      box.dataset.writes = String(mine);
      if (take) {
        take.textContent = writer && !mine ? `Take over from ${writer.who}` : "Type here";
        take.hidden = mine;
        release.hidden = !mine;
      }
      viewers.replaceChildren(...shown.sessions.map((session) => {
        const what = text("span", "what", session.who + (session.session === me ? " (you)" : ""));
        what.append(text("span", "sub", `from ${session.from} (${session.via})`));
        const parts = [what];
        if (session.writes) parts.push(text("span", "badge plain tone-work", "types"));
        if (mayWrite) {
          const button = text("button", "btn small danger-quiet", "End");
          button.type = "button";
          button.addEventListener("click", () => end(session.session));
          parts.push(button);
        }
        return row(...parts);
      }));
    };

    const says = (message) => {
      if (message.type === "presence") presence(message);
      if (message.type === "notice") tell(message.text);
      if (message.type === "skipped") tell(`${message.octets} octets came too fast and are not shown`);
      if (message.type === "ended") {
        if (message.reason === "the server stops") return; // and starts again, most often
        over = true;
        trouble(`This session is over: ${message.reason}.`);
      }
    };

    const closed = () => {
      me = writer = null;
      box.dataset.writes = "false";
      viewers.replaceChildren(row(text("span", "muted", "Not connected.")));
      badge(over ? "ended" : "reconnecting", over ? "tone-bad" : "tone-work");
      again.hidden = !over;
      if (take) take.hidden = release.hidden = true;
      if (!over) setTimeout(open, pause);
      pause = Math.min(pause * 2, 10000);
    };

    const open = () => {
      over = false;
      again.hidden = true;
      const attach = box.dataset.attach || `/api/v1/nodes/${encodeURIComponent(box.dataset.node)}/console/attach`;
      const url = new URL(attach, location.href);
      url.protocol = url.protocol.replace("http", "ws");
      socket = new WebSocket(url);
      socket.binaryType = "arraybuffer";
      socket.addEventListener("open", () => {
        pause = 1000;
        term.reset(); // what is kept comes again
      });
      socket.addEventListener("message", ({ data }) => {
        if (typeof data === "string") says(JSON.parse(data));
        else term.write(new Uint8Array(data));
      });
      socket.addEventListener("close", closed);
    };

    // A terminal answers some of what a machine prints by itself. That is sent only by the one who types; a key that a
    // person presses asks for the place where nobody has it.
    term.onKey(() => { pressed = true; });
    term.onData((data) => {
      const typed = pressed;
      pressed = false;
      if (socket?.readyState !== WebSocket.OPEN) return;
      if (writer?.session === me && me !== null) return socket.send(encoder.encode(data));
      if (!typed || !mayWrite) return;
      if (writer) tell(`${writer.who} types; take over, or wait`);
      else socket.send(encoder.encode(data));
    });
    take?.addEventListener("click", () => { ask("take"); term.focus(); });
    release?.addEventListener("click", () => ask("release"));
    again.addEventListener("click", () => { trouble(null); open(); });
    open();
  };

  // ---- recordings ----

  const octets = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));

  // The events of an asciicast; an event `x` holds the exact octets of the one before it.
  const parse = (cast) => {
    const events = [];
    const encoder = new TextEncoder();
    for (const line of cast.split("\n").slice(1)) {
      if (!line) continue;
      let event;
      try { event = JSON.parse(line); } catch { break; } // cut by a crash
      const [at, code, content] = event;
      if (code === "x" && events.length > 0) events[events.length - 1].octets = octets(content);
      else if (code === "o" || code === "i" || code === "m") events.push({ at, code, octets: encoder.encode(content), content });
    }
    return events;
  };

  const visible = (typed) => typed.replace(/\r/g, "⏎").replace(/[\x00-\x1f\x7f]/g, (c) => `^${String.fromCharCode(c.charCodeAt(0) ^ 64)}`);

  const player = async (box) => {
    const $ = (id) => document.getElementById(`player-${id}`);
    const [play, at, time, speed, note] = ["play", "at", "time", "speed", "note"].map($);
    const term = terminal(box, { disableStdin: true });
    const answer = await fetch(box.dataset.src);
    if (!answer.ok) {
      note.textContent = (await answer.json()).message;
      return;
    }
    const events = parse(await answer.text());
    const length = events.at(-1)?.at ?? 0;
    at.max = String(length);
    let next = 0;
    let now = 0;
    let last = null;
    let written = 0;
    let typed = "";

    const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
    const show = () => {
      at.value = String(now);
      time.textContent = `${clock(now)} / ${clock(length)}`;
      box.dataset.octets = String(written);
      play.textContent = last === null ? (now >= length ? "Play again" : "Play") : "Pause";
    };
    const until = (moment) => {
      for (; next < events.length && events[next].at <= moment; next += 1) {
        const event = events[next];
        if (event.code === "o") {
          term.write(event.octets);
          written += event.octets.length;
        } else if (event.code === "i") {
          typed = (typed + visible(event.content)).slice(-120);
          note.textContent = `Typed: ${typed}`;
        } else {
          note.textContent = event.content;
        }
      }
      now = moment;
    };
    const seek = (moment) => {
      if (moment < now || next === 0) {
        term.reset();
        next = written = 0;
        typed = "";
      }
      until(moment);
      show();
    };
    const tick = (stamp) => {
      if (last === null) return;
      const passed = ((stamp - last) / 1000) * Number(speed.value);
      last = stamp;
      // Nobody waits through a night in which nothing was printed.
      const idle = (events[next]?.at ?? length) - now;
      until(Math.min(length, now + (idle > 2 ? Math.max(passed, idle - 2) : passed)));
      if (now >= length) last = null;
      show();
      if (last !== null) requestAnimationFrame(tick);
    };
    play.addEventListener("click", () => {
      if (last !== null) {
        last = null;
        return show();
      }
      if (now >= length) seek(0);
      last = performance.now();
      show();
      requestAnimationFrame(tick);
    });
    at.addEventListener("input", () => {
      last = null;
      const wanted = Number(at.value);
      seek(wanted + Number(at.step) >= length ? length : wanted); // the end lies between two steps
    });
    seek(0);
  };

  document.addEventListener("DOMContentLoaded", () => {
    const [box, recorded] = ["terminal", "player"].map((id) => document.getElementById(id));
    if (box || recorded) strictElements();
    if (box) live(box);
    if (recorded) player(recorded);
  });
})();
