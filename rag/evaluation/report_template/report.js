"use strict";
(() => {
  const PAGE = 25;
  const BRIEF = 120;
  const CHIPS = 8; // values of a slice that are chips; more are a list to choose from
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const reference = data.reference;
  const rival = reference === null ? "" : data.names[reference];
  const state = { filters: new Map(), search: "", order: reference === null ? "asked" : "changed", page: 0, open: new Set() };

  // Elements are made with textContent only: nothing in the data is ever read as HTML.
  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") made.className = value;
      else if (value !== null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }
  function button(attributes, label, action) {
    const made = element("button", { type: "button", ...attributes }, ...[label].flat());
    made.addEventListener("click", action);
    return made;
  }

  const questions = data.questions.map((question, place) => {
    const own = question.answers[0];
    const other = reference === null ? null : question.answers[reference];
    return { ...question, place, own, other, gain: other ? own.f1 - other.f1 : 0, haystack: null };
  });
  const byId = new Map(questions.map((question) => [question.id, question]));
  function haystack(question) {
    if (question.haystack === null) {
      const texts = [question.question, question.id, question.document || "", ...question.gold];
      question.haystack = [...texts, ...question.answers.map((answer) => answer.text)].join("\n").toLowerCase();
    }
    return question.haystack;
  }

  // Filters: groups of values, of each group at most one is chosen.
  const GROUPS = [{
    key: "outcome",
    label: "Answer",
    names: { right: "Right", wrong: "Wrong", abstained: "Abstained" },
    values: (q) => [q.own.outcome === "right" ? "right" : q.own.abstained ? "" : "wrong", q.own.abstained ? "abstained" : ""],
  }];
  if (reference !== null) {
    GROUPS.push({
      key: "change",
      label: `Against ${rival.toLowerCase()}`,
      names: { any: "Changed", lost: "Lost", gained: "Gained" },
      values: (q) => (q.change === "same" ? [] : ["any", q.change]),
    });
  }
  if (questions.some((q) => q.error !== null)) {
    const known = Object.entries(data.errors).filter(([label]) => label !== "right");
    GROUPS.push({
      key: "error",
      label: "Went wrong",
      names: Object.fromEntries(known),
      values: (q) => [q.error],
    });
  }
  for (const dimension of new Set(questions.flatMap((q) => Object.keys(q.slices)))) {
    const found = new Set(questions.map((q) => q.slices[dimension]).filter((value) => value !== undefined));
    if (found.size < 2) continue;
    GROUPS.push({
      key: `slice ${dimension}`,
      label: dimension.replaceAll("_", " "),
      names: Object.fromEntries([...found].map(String).sort().map((value) => [value, value])),
      values: (q) => [q.slices[dimension] === undefined ? null : String(q.slices[dimension])],
    });
  }

  const RANK = { lost: 0, gained: 1, changed: 2, same: 3 };
  const ORDERS = {
    asked: (a, b) => a.place - b.place,
    worst: (a, b) => a.own.f1 - b.own.f1 || a.place - b.place,
    change: (a, b) => Math.abs(b.gain) - Math.abs(a.gain) || a.place - b.place,
    changed: (a, b) => RANK[a.change] - RANK[b.change] || a.own.f1 - b.own.f1 || a.place - b.place,
  };

  function selected() {
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = GROUPS.filter((group) => state.filters.has(group.key));
    return questions
      .filter((q) => wanted.every((group) => group.values(q).includes(state.filters.get(group.key)))
        && words.every((word) => haystack(q).includes(word)))
      .sort(ORDERS[state.order]);
  }

  const brief = (text) => (text.length > BRIEF ? `${text.slice(0, BRIEF).trimEnd()}…` : text);

  function answerBox(answer, { quiet = false, whole = false } = {}) {
    const given = answer.text !== "";
    const style = quiet && answer.outcome !== "right" ? "quiet" : answer.outcome;
    const text = whole ? answer.text : brief(answer.text);
    const shown = given ? text : answer.abstained ? "abstained" : "no answer";
    return element("span", { class: `answer ${style}${given ? "" : " none-given"}` }, shown);
  }

  function goldBox(question) {
    if (!question.gold.length) return [element("span", { class: "also none-given" }, "not answerable")];
    const more = new Set(question.gold).size - 1;
    const also = more > 0 ? [" ", element("span", { class: "also" }, `+${more}`)] : [];
    return [brief(question.gold[0]), ...also];
  }

  function row(question) {
    const open = state.open.has(question.id);
    const toggle = element("button", { class: "open-row", type: "button", "aria-expanded": String(open) }, question.question);
    const badge = question.change === "lost" || question.change === "gained"
      ? [" ", element("span", { class: `badge ${question.change}` }, question.change)] : [];
    const cells = [
      element("td", {}, toggle),
      element("td", { "data-label": data.names[0] }, element("div", {}, answerBox(question.own), ...badge)),
      element("td", { "data-label": "Gold" }, element("span", {}, ...goldBox(question))),
    ];
    if (reference !== null) cells.push(element("td", { "data-label": rival }, answerBox(question.other, { quiet: true })));
    cells.push(element("td", { class: "score", "data-label": "F1" }, question.own.f1.toFixed(0)));
    const made = element("tr", { class: open ? "row open" : "row", "data-id": question.id }, ...cells);
    made.addEventListener("click", () => {
      if (String(window.getSelection())) return;
      if (!state.open.delete(question.id)) {
        state.open.add(question.id);
        setAddress(question.id);
      }
      draw();
      focusOn(question.id);
    });
    return made;
  }

  function focusOn(id) {
    const found = [...document.querySelectorAll(".row")].find((each) => each.dataset.id === id);
    if (found) found.querySelector("button").focus({ preventScroll: true });
    return found;
  }

  function marked(text, evidence) {
    const edges = new Set([0, text.length]);
    for (const span of [...evidence.gold, ...evidence.answer]) span.forEach((edge) => edges.add(edge));
    const sorted = [...edges].sort((a, b) => a - b);
    const within = (spans, start) => spans.some(([from, to]) => from <= start && start < to);
    return sorted.slice(0, -1).map((start, place) => {
      const piece = text.slice(start, sorted[place + 1]);
      const styles = [
        within(evidence.gold, start) ? "gold" : "",
        within(evidence.answer, start) ? "answered" : "",
      ].filter(Boolean);
      return styles.length ? element("mark", { class: styles.join(" ") }, piece) : piece;
    });
  }

  // How much of the answer came from a passage, by a reader that weighs its passages.
  function shareOf(share) {
    const bar = element("i", {});
    bar.style.width = `${100 * share}%`;
    const percent = share < 0.01 ? "under 1" : (100 * share).toFixed(0);
    return element("span", { class: "share" }, element("span", { class: "share-bar" }, bar), `${percent} % of the answer`);
  }

  function passage(evidence, place) {
    const [documentId, text] = data.passages[evidence.passage];
    const head = element("header", {}, element("b", {}, `${place + 1}`), documentId);
    if (evidence.relevant) head.append(element("span", { class: "holds" }, "holds the answer"));
    if (evidence.share !== null) head.append(shareOf(evidence.share));
    head.append(element("span", { class: "number" }, `score ${evidence.score.toFixed(3)}`));
    const made = element("article", { class: "passage" }, head, element("p", {}, ...marked(text, evidence)));
    // A passage with nothing to see in it shows two lines until it is opened.
    const plain = !evidence.relevant && !evidence.gold.length && !evidence.answer.length;
    if (plain) {
      made.classList.add("folded");
      const unfold = () => { made.classList.remove("folded"); more.remove(); };
      const more = button({ class: "more" }, "Show all", unfold);
      made.append(more);
      made.addEventListener("click", unfold);
    }
    return made;
  }

  function detail(question) {
    const list = element("dl", {});
    const add = (name, ...value) => list.append(element("dt", {}, name), element("dd", {}, ...value));
    add("Gold", question.gold.length ? [...new Set(question.gold)].join(" · ") : "not answerable from the documents");
    question.answers.forEach((answer, place) => {
      const sure = place === 0 && question.confidence !== null ? ` · confidence ${(100 * question.confidence).toFixed(0)} %` : "";
      add(data.names[place], answerBox(answer, { whole: true }), element("em", {}, `F1 ${answer.f1.toFixed(0)}${sure}`));
    });
    if (question.error !== null && question.error !== "right") add("Went wrong", data.errors[question.error] || question.error);
    if (question.document) add("Document", question.document);
    const slices = Object.entries(question.slices).map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`);
    if (slices.length) add("Slices", slices.join(" · "));
    add("Id", question.id);
    const actions = element("p", { class: "actions" },
      button({}, "Copy link", () => copy(addressOf(question.id), "Link")),
      button({}, "Copy as JSON", () => copy(asJson(question), "Question")));
    const cell = element("td", { colspan: String(reference === null ? 4 : 5) }, list, actions, ...question.evidence.map(passage));
    if (question.evidence.length) {
      cell.append(element("p", { class: "marks" },
        element("mark", { class: "gold" }, "gold answer"), "  ·  ",
        element("mark", { class: "answered" }, "answer given")));
    }
    return element("tr", { class: "detail" }, cell);
  }

  function asJson(question) {
    const { id, question: text, gold, document: gold_document, slices, error, confidence } = question;
    const answers = Object.fromEntries(question.answers.map((answer, place) => [data.systems[place], answer]));
    const evidence = question.evidence.map((item) => {
      const [document_id, passage_text] = data.passages[item.passage];
      return { document_id, text: passage_text, score: item.score, relevant: item.relevant, share: item.share };
    });
    return JSON.stringify({ id, question: text, gold, gold_document, slices, error, confidence, answers, evidence }, null, 2);
  }

  async function copy(text, what) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not allowed in a frame: the older way
      const box = element("textarea", { class: "spoken" });
      box.value = text;
      document.body.append(box);
      box.select();
      done = document.execCommand("copy");
      box.remove();
    }
    at("said").textContent = done ? `${what} copied.` : "The browser does not allow copying.";
    at("said").classList.add("shown");
    setTimeout(() => at("said").classList.remove("shown"), 2500);
  }

  // A question's address: the page's own, and #q= with its id.
  const addressOf = (id) => `${location.href.split("#")[0]}#q=${encodeURIComponent(id)}`;
  function setAddress(id) {
    // A page in a frame without an address of its own cannot have one.
    try { history.replaceState(null, "", `#q=${encodeURIComponent(id)}`); } catch { return; }
  }
  function openAddress() {
    if (!location.hash.startsWith("#q=")) return;
    let id = location.hash.slice(3);
    try { id = decodeURIComponent(id); } catch { return; }
    if (!byId.has(id)) return;
    clearFilters();
    state.page = Math.floor(selected().indexOf(byId.get(id)) / PAGE);
    state.open.add(id);
    draw();
    const found = focusOn(id);
    if (found) found.scrollIntoView({ block: "start" });
  }

  function draw() {
    const found = selected();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const first = state.page * PAGE;
    const shown = found.slice(first, first + PAGE);
    at("rows").replaceChildren(
      ...shown.flatMap((q) => (state.open.has(q.id) ? [row(q), detail(q)] : [row(q)])),
    );
    const count = (number) => number.toLocaleString("en");
    at("nothing").hidden = found.length > 0;
    at("count").textContent = found.length === questions.length
      ? `${count(questions.length)} questions` : `${count(found.length)} of ${count(questions.length)} questions`;
    at("clear").hidden = !state.filters.size && !state.search;
    at("page").textContent = found.length ? `${count(first + 1)}–${count(first + shown.length)} of ${count(found.length)}` : "0 of 0";
    at("pages").hidden = pages === 1;
    at("previous").disabled = state.page === 0;
    at("next").disabled = state.page >= pages - 1;
    for (const chip of document.querySelectorAll("#filters button[data-value]")) {
      chip.setAttribute("aria-pressed", String(state.filters.get(chip.dataset.group) === chip.dataset.value));
    }
    for (const list of document.querySelectorAll("#filters select")) list.value = state.filters.get(list.dataset.group) || "";
  }

  function change(update) {
    Object.assign(state, { page: 0 }, update);
    draw();
  }
  function filter(group, value) {
    if (value === "" || state.filters.get(group) === value) state.filters.delete(group);
    else state.filters.set(group, value);
    change({});
  }
  function clearFilters() {
    state.filters.clear();
    state.search = at("search").value = "";
  }
  function turn(by) {
    state.page += by;
    draw();
    at("questions").scrollIntoView();
  }

  function addGroup(group) {
    const counts = new Map();
    for (const q of questions) for (const value of group.values(q)) counts.set(value, (counts.get(value) || 0) + 1);
    const values = Object.keys(group.names).filter((value) => counts.has(value));
    if (!values.length) return;
    const box = element("div", { class: "filter", role: "group", "aria-label": group.label }, element("span", { class: "filter-name" }, group.label));
    if (values.length > CHIPS) {
      const list = element("select", { "data-group": group.key, "aria-label": group.label }, element("option", { value: "" }, "all"));
      for (const value of values) list.append(element("option", { value }, `${group.names[value]} (${counts.get(value)})`));
      list.addEventListener("change", () => filter(group.key, list.value));
      box.append(list);
    } else {
      for (const value of values) {
        const label = [group.names[value], element("span", {}, String(counts.get(value)))];
        box.append(button({ "data-group": group.key, "data-value": value, "aria-pressed": "false" }, label, () => filter(group.key, value)));
      }
    }
    at("filters").append(box);
  }

  const THEMES = { Auto: ["light dark", "follows the system"], Light: ["light", "always"], Dark: ["dark", "always"] };
  function setTheme(name) {
    document.documentElement.style.colorScheme = THEMES[name][0];
    at("theme").textContent = name;
    at("theme").setAttribute("aria-label", `Theme: ${name}, ${THEMES[name][1]}`);
    // A page in a sandboxed frame has no storage; the theme then lasts as long as the page.
    try { localStorage.setItem("ragloop-theme", name); } catch { return; }
  }
  function storedTheme() {
    try { return localStorage.getItem("ragloop-theme"); } catch { return null; }
  }

  GROUPS.forEach(addGroup);
  const heads = ["Question", data.names[0], "Gold", ...(reference === null ? [] : [rival]), "F1"];
  at("head").append(...heads.map((name) => element("th", { scope: "col" }, name)));
  at("search").addEventListener("input", (event) => change({ search: event.target.value }));
  at("order").addEventListener("change", (event) => change({ order: event.target.value }));
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  at("clear").addEventListener("click", () => { clearFilters(); change({}); at("search").focus(); });
  const toQuestions = () => { at("questions").scrollIntoView(); at("questions-title").focus({ preventScroll: true }); };
  at("to-questions").addEventListener("click", toQuestions);
  for (const chip of document.querySelectorAll(".slice")) {
    const group = GROUPS.find((each) => each.key === `slice ${chip.dataset.dimension}`);
    if (!group || !(chip.dataset.value in group.names)) { chip.disabled = true; continue; }
    chip.addEventListener("click", () => {
      clearFilters();
      filter(group.key, chip.dataset.value);
      toQuestions();
    });
  }
  at("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    setTheme(names[(names.indexOf(at("theme").textContent) + 1) % names.length]);
  });
  if (storedTheme() in THEMES) setTheme(storedTheme());
  if (reference === null) for (const name of ["change", "changed"]) at("order").querySelector(`[value="${name}"]`).remove();
  at("order").value = state.order;
  if (data.without_evidence) {
    at("cut").hidden = false;
    at("cut").textContent = `${data.without_evidence.toLocaleString("en")} questions are shown without their passages, to keep this page small: they are in predictions.parquet.`;
  }
  draw();
  openAddress();
  window.addEventListener("hashchange", openAddress);
})();
