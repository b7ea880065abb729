"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const CHOICES = [
    ["A", "A is better"],
    ["B", "B is better"],
    ["tie", "Both good"],
    ["both_bad", "Both bad"],
  ];
  const NO_ANSWER = "(no answer)";
  // The whole sheet names the place: another sheet, or one that was changed, starts anew.
  const PLACE = `ragloop-review-${data.review}-${data.sheet}`;
  const state = { verdicts: {}, comments: {}, rater: "", row: 0 };

  // Elements are made with textContent only: nothing in the data is ever read as HTML.
  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function load() {
    try {
      Object.assign(state, JSON.parse(localStorage.getItem(PLACE)) || {});
    } catch {
      at("storage").hidden = false;
    }
  }
  function save() {
    try {
      localStorage.setItem(PLACE, JSON.stringify(state));
    } catch {
      at("storage").hidden = false;
    }
  }

  const current = () => data.rows[state.row];
  const judged = () => data.rows.filter((row) => row.row in state.verdicts).length;
  const finished = () => judged() === data.rows.length;

  function answer(id, text) {
    at(id).textContent = text;
    at(id).classList.toggle("declined", text === NO_ANSWER);
  }

  function draw() {
    const row = current();
    const done = judged();
    const verdict = state.verdicts[row.row];
    at("count").textContent = `${done} of ${data.rows.length} judged`;
    at("fill").style.width = `${(100 * done) / data.rows.length}%`;
    at("progress").setAttribute("aria-valuenow", String(Math.round((100 * done) / data.rows.length)));
    at("place").textContent = `Question ${state.row + 1} of ${data.rows.length}`;
    at("question").textContent = row.question;
    at("accepted").hidden = !row.accepted.length;
    at("accepted").textContent = `Accepted: ${[...new Set(row.accepted)].join(" · ")}`;
    answer("answer-a", row.answer_a);
    answer("answer-b", row.answer_b);
    at("side-a").classList.toggle("better", verdict === "A");
    at("side-b").classList.toggle("better", verdict === "B");
    for (const button of at("choices").children) {
      button.setAttribute("aria-pressed", String(button.dataset.choice === verdict));
    }
    at("comment").value = state.comments[row.row] || "";
    at("previous").disabled = state.row === 0;
    at("next").disabled = state.row === data.rows.length - 1;
    at("passages").replaceChildren(
      ...(row.passages.length ? [element("p", { class: "passages-title" }, "Passages that were found")] : []),
      ...row.passages.map((text) => element("blockquote", { class: "passage" }, text)),
    );
    [...at("map").children].forEach((item, place) => {
      const button = item.firstChild;
      button.classList.toggle("judged", data.rows[place].row in state.verdicts);
      button.setAttribute("aria-current", String(place === state.row));
    });
    for (const id of ["export-csv", "export-json"]) at(id).disabled = !finished();
    document.body.classList.toggle("ready", finished());
    at("state").textContent = finished()
      ? "All judged. Export a file and send it to whoever gave you this page."
      : `${data.rows.length - done} left; what you have judged is kept in this browser.`;
  }

  function go(row) {
    if (row < 0 || row >= data.rows.length) return;
    state.row = row;
    save();
    draw();
    window.scrollTo(0, 0);
  }

  function judge(choice) {
    state.verdicts[current().row] = choice;
    const places = data.rows.map((_, place) => (state.row + place) % data.rows.length);
    const open = places.find((place) => !(data.rows[place].row in state.verdicts));
    go(open === undefined ? state.row : open);
    if (open === undefined) at("rater").scrollIntoView({ block: "center" });
  }

  // The quoting of RFC 4180, and an apostrophe before what a spreadsheet would take for a formula.
  function cell(text) {
    const plain = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  }
  function asCsv() {
    const columns = ["review", "sheet", "rater", "row", "question", "answer_a", "answer_b", "verdict", "comment"];
    const lines = data.rows.map((row) => {
      const values = { ...row, ...shared(), verdict: state.verdicts[row.row], comment: state.comments[row.row] || "" };
      return columns.map((name) => cell(values[name])).join(",");
    });
    return `${[columns.join(","), ...lines].join("\r\n")}\r\n`;
  }
  function asJson() {
    const verdicts = data.rows.map((row) => ({
      row: row.row,
      verdict: state.verdicts[row.row],
      comment: state.comments[row.row] || "",
    }));
    return `${JSON.stringify({ ...shared(), verdicts }, null, 1)}\n`;
  }
  const shared = () => ({ review: data.review, sheet: data.sheet, rater: state.rater.trim() });

  function download(text, type, ending) {
    // A byte order mark tells spreadsheets that this is UTF-8.
    const mark = ending === "csv" ? "\ufeff" : "";
    const address = URL.createObjectURL(new Blob([mark, text], { type }));
    const rater = state.rater.trim().replace(/[^\p{L}\p{N}]+/gu, "-");
    const name = ["verdicts", data.review, rater].filter(Boolean).join("-");
    element("a", { href: address, download: `${name}.${ending}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  CHOICES.forEach(([choice, label], place) => {
    const key = element("kbd", {}, String(place + 1));
    const button = element("button", { type: "button", "data-choice": choice }, key, label);
    button.addEventListener("click", () => judge(choice));
    at("choices").append(button);
  });
  data.rows.forEach((row, place) => {
    const button = element("button", { type: "button", "aria-label": `Question ${place + 1}` }, String(place + 1));
    button.addEventListener("click", () => go(place));
    at("map").append(element("li", {}, button));
  });
  at("previous").addEventListener("click", () => go(state.row - 1));
  at("next").addEventListener("click", () => go(state.row + 1));
  at("comment").addEventListener("input", (event) => {
    state.comments[current().row] = event.target.value;
    save();
  });
  at("rater").addEventListener("input", (event) => {
    state.rater = event.target.value;
    save();
  });
  at("export-csv").addEventListener("click", () => download(asCsv(), "text/csv", "csv"));
  at("export-json").addEventListener("click", () => download(asJson(), "application/json", "json"));
  at("clear").addEventListener("click", () => {
    if (!window.confirm("Forget all verdicts and comments on this page?")) return;
    Object.assign(state, { verdicts: {}, comments: {}, rater: "", row: 0 });
    at("rater").value = "";
    go(0);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const choice = CHOICES["1234".indexOf(event.key)];
    if (choice && event.key.length === 1 && !event.repeat) judge(choice[0]);
    else if (event.key === "ArrowLeft") go(state.row - 1);
    else if (event.key === "ArrowRight") go(state.row + 1);
    else if (event.key.toLowerCase() === "c") at("comment").focus();
    else return;
    event.preventDefault();
  });
  load();
  at("rater").value = state.rater;
  draw();
})();
