// Sends messages, and shows what the service streams. Texts of others come in by textContent only.

const $ = (id) => document.getElementById(id);
const ENDS = {
  user: "Cancelled by you.",
  deadline: "Cancelled: its time was over.",
  shutdown: "Cancelled: the service restarts.",
  remote: "Cancelled by somebody else.",
};
const chat = { id: null };
const setStatus = (text) => { $("status").textContent = text; };
const taskPath = (...rest) => ["/tasks", ...rest.map(encodeURIComponent)].join("/");

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// --- the service ---------------------------------------------------------------------------------
async function ask(method, path, body) {
  const headers = { "content-type": "application/json" };
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) }).catch(() => {
    throw new Error("The service cannot be reached.");
  });
  if (response.ok) return response;
  if (response.status === 503) {
    throw new Error(`The service restarts. Try again in ${response.headers.get("retry-after")} s.`);
  }
  const { detail } = await response.json().catch(() => ({}));
  throw new Error(typeof detail === "string" ? detail : `The service answered ${response.status}.`);
}

// Not an EventSource: that would send the message again whenever the connection breaks.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let text = "", piece; !(piece = await reader.read()).done;) {
      const blocks = (text + piece.value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
        if (fields.event) yield { type: fields.event, data: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel(); // whoever leaves early hangs up
  }
}

// --- one turn ------------------------------------------------------------------------------------
class Reply {
  constructor() {
    this.element = make("article", "reply working");
    this.element.setAttribute("aria-label", "Agent");
    this.answer = null;
    this.tools = new Map();
    this.ended = false;
    $("log").append(this.element);
  }

  add(className, text) {
    this.answer = null; // what is said next comes after this
    const element = make("p", className, text);
    this.element.append(element);
    return element;
  }

  say(text) {
    this.answer ??= this.add("answer", "");
    this.answer.append(text); // a text node: a screen reader reads what is new
  }

  tool({ callId, toolName, status, args }) {
    let tool = this.tools.get(callId);
    if (!tool) {
      tool = make("section", "tool");
      tool.setAttribute("aria-label", `Tool ${toolName}`);
      tool.append(make("p", "what"));
      this.tools.set(callId, tool);
      this.element.append(tool);
      this.answer = null;
    }
    const asks = status === "awaiting_approval";
    const given = args && Object.keys(args).length ? ` ${JSON.stringify(args)}` : "";
    const words = asks ? "The agent wants to use " : status === "cancelled" ? "Rejected: " : "Tool: ";
    tool.querySelector(".what").replaceChildren(words, make("code", "", toolName + given));
    tool.classList.toggle("asks", asks);
    if (asks && !tool.querySelector(".buttons")) tool.append(this.buttons(callId, toolName));
    if (!asks) tool.querySelector(".buttons")?.remove();
    setStatus(asks ? `The agent waits: may it use ${toolName}?` : "The agent works…");
  }

  buttons(callId, toolName) {
    const row = make("div", "buttons");
    for (const [word, outcome, className] of [["Approve", "proceed_once", "primary"], ["Reject", "cancel", "danger"]]) {
      const button = make("button", className, word);
      button.type = "button";
      button.setAttribute("aria-label", `${word} ${toolName}`);
      button.addEventListener("click", () => {
        $("log").focus(); // this button goes away; nor may a key that is held press another one
        ask("POST", taskPath(chat.id, "tools", callId), { outcome }).catch((error) => setStatus(error.message));
      });
      row.append(button);
    }
    return row;
  }

  result({ callId, result }) {
    const text = typeof result === "string" ? result : JSON.stringify(result);
    this.tools.get(callId)?.append(make("p", "thought", `Result: ${text}`));
  }

  end(text, className = "end") {
    this.ended = true;
    for (const tool of this.tools.values()) {
      tool.classList.remove("asks");
      tool.querySelector(".buttons")?.remove();
    }
    if (text) this.add(className, text);
  }
}

const HANDLERS = {
  __proto__: null, // what a type that is not documented is called is no name of ours
  start: (reply, { id }) => { chat.id = id; refresh(); },
  thought: (reply, { text }) => reply.add("thought", text),
  content: (reply, { text }) => reply.say(text ?? ""),
  tool_call: (reply, data) => reply.tool(data),
  tool_result: (reply, data) => reply.result(data),
  error: (reply, { message }) => reply.add("wrong", message),
  shutdown: (reply, { retry_after }) => {
    chat.id = null; // that task takes no follow-up: what is sent again starts another one
    reply.end(`The service restarts, and ended the task. Send it again in ${retry_after} s.`, "wrong");
  },
  end: (reply, { outcome, reason }) => {
    if (reason === "shutdown") chat.id = null;
    if (outcome === "completed") reply.end("");
    else if (outcome === "failed") reply.end("The agent failed.", "wrong");
    else reply.end(ENDS[reason] ?? "Cancelled.");
  },
};

async function takeTurn(message) {
  $("empty").hidden = true;
  $("log").append(make("p", "mine", message));
  const reply = new Reply();
  setRunning(true);
  scrollTo(0, document.body.scrollHeight);
  try {
    const path = chat.id ? taskPath(chat.id, "messages") : "/tasks";
    const response = await ask("POST", path, { message, keep: $("keep").checked });
    for await (const { type, data } of eventsOf(response)) {
      const follow = innerHeight + scrollY > document.body.scrollHeight - 120;
      HANDLERS[type]?.(reply, data ?? {});
      if (follow) scrollTo(0, document.body.scrollHeight);
    }
    if (!reply.ended) reply.end("The connection was lost.", "wrong");
  } catch (error) {
    reply.end(error.message, "wrong");
  }
  reply.element.classList.remove("working");
  setRunning(false);
}

// --- the controls --------------------------------------------------------------------------------
function setRunning(running) {
  const focused = document.activeElement; // what is hidden now loses it
  $("send").hidden = $("new").disabled = running;
  $("cancel").hidden = !running;
  $("prompt").textContent = chat.id ? "Follow-up" : "Message";
  setStatus(running ? "The agent works…" : "");
  if (running && focused !== $("message")) $("log").focus();
  if (!running && focused === $("cancel")) $("message").focus();
  refresh();
}

async function cancel(id) {
  refresh(); // which shows the reason, as soon as there is one
  await ask("DELETE", taskPath(id)).catch((error) => setStatus(error.message));
  refresh();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = $("message").value.trim();
  if (!message || $("send").hidden) return;
  $("message").value = "";
  takeTurn(message);
});
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
$("cancel").addEventListener("click", () => {
  if (!chat.id) return;
  setStatus("Cancelling…");
  cancel(chat.id); // again, if need be: disabled, the button would lose the focus
});
$("new").addEventListener("click", () => {
  chat.id = null;
  $("log").replaceChildren();
  $("empty").hidden = false;
  $("prompt").textContent = "Message";
  $("message").focus();
});
for (const idea of $("ideas").querySelectorAll("button")) {
  idea.addEventListener("click", () => takeTurn(idea.textContent));
}

// --- live tasks ----------------------------------------------------------------------------------
const age = (s) => (s < 90 ? `${Math.floor(s)} s` : s < 5400 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h`);

function rowOf(id) {
  const row = make("tr", "");
  row.dataset.id = id;
  const name = make("th", "", id.slice(0, 8));
  name.scope = "row";
  const button = make("button", "danger", "Cancel");
  button.type = "button";
  button.setAttribute("aria-label", `Cancel task ${id.slice(0, 8)}`);
  button.addEventListener("click", () => cancel(id));
  const last = make("td", "");
  last.append(button);
  row.append(name, make("td", ""), make("td", ""), make("td", ""), last);
  return row;
}

async function refresh() {
  const tasks = await ask("GET", "/tasks").then((response) => response.json()).catch(() => []);
  const old = new Map([...$("rows").children].map((row) => [row.dataset.id, row]));
  const rows = tasks.filter(({ id }) => id).map((task) => {
    const row = old.get(task.id) ?? rowOf(task.id); // the same one: its button may have the focus
    row.className = task.id === chat.id ? "own" : "";
    [task.state, age(task.age), task.reason ?? "–"].forEach((text, i) => { row.children[i + 1].textContent = text; });
    return row;
  });
  if ([...$("rows").children].some((row, i) => row !== rows[i]) || rows.length !== old.size) {
    const focused = document.activeElement;
    const gone = $("rows").contains(focused) && !rows.some((row) => row.contains(focused));
    $("rows").replaceChildren(...rows);
    (gone ? $("live") : focused).focus();
  }
  $("tasks").hidden = !rows.length;
  $("none").hidden = rows.length > 0;
}

setInterval(() => { if (!document.hidden) refresh(); }, 2000);
refresh();
