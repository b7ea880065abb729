"use strict";
(() => {
  const PAGE = 25;
  const BRIEF = 120;
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const hasBaseline = data.has_baseline;
  const state = { filter: "all", search: "", order: "asked", page: 0, open: new Set() };

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

  const questions = data.questions.map((question, place) => {
    const own = question.answers[0];
    const baseline = hasBaseline ? question.answers[1] : null;
    const texts = [question.question, question.id, question.document || "", ...question.gold];
    return {
      ...question,
      place,
      own,
      baseline,
      gain: baseline ? own.f1 - baseline.f1 : 0,
      changed: Boolean(baseline) && own.text !== baseline.text,
      haystack: [...texts, ...question.answers.map((answer) => answer.text)].join("\n").toLowerCase(),
    };
  });

  const FILTERS = [
    ["all", "All", () => true],
    ["right", "Right", (q) => q.own.outcome === "right"],
    ["wrong", "Wrong", (q) => q.own.outcome !== "right" && !q.own.abstained],
    ["abstained", "Abstained", (q) => q.own.abstained],
  ];
  if (hasBaseline) {
    const before = data.names[1].toLowerCase();
    FILTERS.push(
      ["changed", `Changed from ${before}`, (q) => q.changed],
      ["gained", "Newly right", (q) => q.own.outcome === "right" && q.baseline.outcome !== "right"],
      ["lost", "Newly wrong", (q) => q.own.outcome !== "right" && q.baseline.outcome === "right"],
    );
  }
  const ORDERS = {
    asked: (a, b) => a.place - b.place,
    worst: (a, b) => a.own.f1 - b.own.f1 || a.place - b.place,
    change: (a, b) => Math.abs(b.gain) - Math.abs(a.gain) || a.place - b.place,
  };

  function selected() {
    const wanted = FILTERS.find(([key]) => key === state.filter)[2];
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    return questions
      .filter((q) => wanted(q) && words.every((word) => q.haystack.includes(word)))
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
    const cells = [
      element("td", {}, toggle),
      element("td", { "data-label": data.names[0] }, answerBox(question.own)),
      element("td", { "data-label": "Gold" }, element("span", {}, ...goldBox(question))),
    ];
    if (hasBaseline) cells.push(element("td", { "data-label": data.names[1] }, answerBox(question.baseline, { quiet: true })));
    cells.push(element("td", { class: "score", "data-label": "F1" }, question.own.f1.toFixed(0)));
    const made = element("tr", { class: open ? "row open" : "row", "data-id": question.id }, ...cells);
    made.addEventListener("click", () => {
      if (String(window.getSelection())) return;
      if (!state.open.delete(question.id)) state.open.add(question.id);
      draw();
      const again = [...document.querySelectorAll(".row")].find((each) => each.dataset.id === question.id);
      if (again) again.querySelector("button").focus({ preventScroll: true });
    });
    return made;
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
    if (evidence.relevant) head.append(element("span", { class: "badge" }, "holds the answer"));
    if (evidence.share !== null) head.append(shareOf(evidence.share));
    head.append(element("span", { class: "number" }, `score ${evidence.score.toFixed(3)}`));
    const made = element("article", { class: "passage" }, head, element("p", {}, ...marked(text, evidence)));
    // A passage with nothing to see in it shows two lines until it is clicked.
    const plain = !evidence.relevant && !evidence.gold.length && !evidence.answer.length;
    made.classList.toggle("folded", plain);
    made.addEventListener("click", () => made.classList.remove("folded"));
    return made;
  }

  function detail(question) {
    const list = element("dl", {});
    const add = (name, ...value) => list.append(element("dt", {}, name), element("dd", {}, ...value));
    add("Gold", question.gold.length ? [...new Set(question.gold)].join(" · ") : "not answerable from the documents");
    question.answers.forEach((answer, place) => {
      add(data.names[place], answerBox(answer, { whole: true }), element("em", {}, `F1 ${answer.f1.toFixed(0)}`));
    });
    if (question.document) add("Document", question.document);
    for (const [name, value] of Object.entries(question.slices)) add(name, String(value));
    add("Id", question.id);
    const cell = element("td", { colspan: String(hasBaseline ? 5 : 4) }, list, ...question.evidence.map(passage));
    if (question.evidence.length) {
      cell.append(element("p", { class: "marks" },
        element("mark", { class: "gold" }, "gold answer"), "  ·  ",
        element("mark", { class: "answered" }, "answer given")));
    }
    return element("tr", { class: "detail" }, cell);
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
    at("nothing").hidden = found.length > 0;
    at("page").textContent = found.length ? `${first + 1}–${first + shown.length} of ${found.length}` : "0 of 0";
    at("previous").disabled = state.page === 0;
    at("next").disabled = state.page >= pages - 1;
    for (const button of at("filters").children) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === state.filter));
    }
  }

  function change(update) {
    Object.assign(state, { page: 0 }, update);
    draw();
  }

  function turn(by) {
    state.page += by;
    draw();
    at("questions").scrollIntoView();
  }

  const THEMES = { Auto: "light dark", Light: "light", Dark: "dark" };
  function setTheme(name) {
    document.documentElement.style.colorScheme = THEMES[name];
    at("theme").textContent = name;
    // A page in a sandboxed frame has no storage; the theme then lasts as long as the page.
    try { localStorage.setItem("ragloop-theme", name); } catch { return; }
  }
  function storedTheme() {
    try { return localStorage.getItem("ragloop-theme"); } catch { return null; }
  }

  for (const [key, label, wanted] of FILTERS) {
    const count = element("span", {}, String(questions.filter(wanted).length));
    const button = element("button", { type: "button", "data-filter": key }, label, count);
    button.addEventListener("click", () => change({ filter: key }));
    at("filters").append(button);
  }
  const heads = ["Question", data.names[0], "Gold", ...(hasBaseline ? [data.names[1]] : []), "F1"];
  at("head").append(...heads.map((name) => element("th", { scope: "col" }, name)));
  at("search").addEventListener("input", (event) => change({ search: event.target.value }));
  at("order").addEventListener("change", (event) => change({ order: event.target.value }));
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  at("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    setTheme(names[(names.indexOf(at("theme").textContent) + 1) % names.length]);
  });
  if (storedTheme() in THEMES) setTheme(storedTheme());
  if (!hasBaseline) at("order").querySelector('[value="change"]').remove();
  draw();
})();
