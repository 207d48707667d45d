// The answers of a report: filters, and cases drawn as they are asked for. Nothing here is ever
// taken for HTML: what models wrote becomes text nodes alone.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("cases");
  const PAGE = 20, LONG = 1500;
  const FILTERS = ["suite", "split", "task", "outcome", "control", "with", "q"];
  const OUTCOMES = {
    gained: "gained", lost: "lost", pass: "both pass", fail: "both fail", mixed: "both now and then",
  };
  const lower = new Map();
  for (const one of data.cases) one.byArm = new Map(one.answers);

  let state = {};   // the filters by name, and "arms": the numbers of those shown
  let found = [];   // the cases that match
  let drawn = 0;    // how many of them are on the page

  function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter(child => child !== null));
    return element;
  }

  const plural = (n, thing) => `${n.toLocaleString("en")} ${thing}${n === 1 ? "" : "s"}`;

  // --- the state, and the address that holds it ---

  function fromAddress() {
    const hash = location.hash.slice(1);
    const values = new URLSearchParams(hash.includes("=") ? hash : "");
    const next = {};
    for (const name of FILTERS) next[name] = values.get(name) || "";
    const named = values.getAll("arm").map(name => data.arms.indexOf(name));
    next.arms = named.filter(arm => arm >= 0);
    if (!next.arms.length) next.arms = [...data.first];
    state = next;
    return hash.includes("=");
  }

  function toAddress() {
    const values = new URLSearchParams();
    for (const name of FILTERS) if (state[name]) values.append(name, state[name]);
    if (String(state.arms) !== String(data.first)) {
      for (const arm of state.arms) values.append("arm", data.arms[arm]);
    }
    try {
      history.replaceState(null, "", "#" + values);
    } catch { /* a browser may forbid it for files: the filters work all the same */ }
  }

  const base = () => {
    const named = data.arms.indexOf(state.with);
    return named >= 0 ? named : data.plain ?? 0;
  };
  const others = () => state.arms.filter(arm => arm !== base());

  // --- which cases match ---

  function outcome(one, arm) {
    const [left, right] = [one.byArm.get(base()), one.byArm.get(arm)];
    if (!left || !right) return "";
    const runs = new Map(left.map(answer => [answer[0], answer[2]]));
    const both = right.filter(answer => runs.has(answer[0]));
    if (!both.length) return "";
    const after = both.reduce((sum, answer) => sum + answer[2], 0);
    const before = both.reduce((sum, answer) => sum + runs.get(answer[0]), 0);
    if (after !== before) return after > before ? "gained" : "lost";
    return after === both.length ? "pass" : after === 0 ? "fail" : "mixed";
  }

  function holds(text, wanted) {
    if (!lower.has(text)) lower.set(text, data.texts[text].toLowerCase());
    return lower.get(text).includes(wanted);
  }

  function mentions(one, wanted) {
    if (`${one.name}\n${one.task}`.toLowerCase().includes(wanted)) return true;
    if (holds(one.instruction, wanted) || holds(one.query, wanted)) return true;
    return [base(), ...others()].some(arm =>
      (one.byArm.get(arm) || []).some(answer => holds(answer[1], wanted)));
  }

  function matches(one) {
    const group = data.groups[one.group];
    return (!state.suite || group.suite === state.suite)
      && (!state.split || group.split === state.split)
      && (!state.task || one.task === state.task)
      && (!state.control || one.control === (state.control === "yes"))
      && (!state.outcome || others().some(arm => outcome(one, arm) === state.outcome))
      && (!state.q || mentions(one, state.q.toLowerCase()));
  }

  // --- drawing a case ---

  function marks(before, after, mode) {
    const parts = Words.differing(before, after);
    const plain = mode === "before" ? before : after;
    if (!parts) return [["same", plain]];
    return parts.flatMap(([kind, was, is]) => {
      if (mode === "before") return was ? [[kind, was]] : [];
      if (mode === "after") return is ? [[kind, is]] : [];
      // Track changes: what is gone stands in front of what is new.
      return kind === "gone" ? [[kind, was]] : is ? [[kind, is]] : [];
    });
  }

  function written(parts) {
    const size = parts.reduce((sum, [, text]) => sum + text.length, 0);
    const box = el("div", {class: "text", dir: "auto"});
    const fill = most => {
      const tags = {gone: "del", new: "ins"};
      box.replaceChildren();
      for (const [kind, text] of parts) {
        if (most <= 0) break;
        const shown = text.length > most ? text.slice(0, most) + "…" : text;
        box.append(tags[kind] ? el(tags[kind], {}, shown) : shown);
        most -= text.length;
      }
      if (!size) box.append(el("span", {class: "empty"}, "(empty)"));
    };
    fill(size > LONG * 1.3 ? LONG : Infinity);
    if (size <= LONG * 1.3) return [box];
    const button = el("button", {type: "button"}, `Show all ${size.toLocaleString("en")} characters`);
    button.addEventListener("click", () => { fill(Infinity); button.remove(); });
    return [box, button];
  }

  // The answers of an arm, those that are alike in every way together; `beside` by run.
  function variants(answers, beside) {
    const kinds = new Map();
    for (const answer of answers) {
      const other = beside.get(answer[0]);
      const key = JSON.stringify([answer.slice(1), other === undefined ? null : other[1]]);
      if (!kinds.has(key)) kinds.set(key, {answer, other, runs: []});
      kinds.get(key).runs.push(answer[0]);
    }
    return [...kinds.values()];
  }

  function judged(variant, several, parts) {
    const [, text, passed, why, faults, ratings] = variant.answer;
    const runs = `${variant.runs.length === 1 ? "run" : "runs"} ${variant.runs.join(", ")}`;
    const same = variant.other !== undefined && variant.other[1] === text;
    return el("div", {class: "variant"},
      el("p", {class: "verdict"},
        el("span", {class: passed ? "badge pass" : "badge fail"}, passed ? "✓ passes" : "✗ fails"),
        several ? ` ${runs}` : null,
        ...faults.map(fault => el("span", {class: "badge fault"}, fault))),
      ...written(parts),
      data.texts[why] ? el("p", {class: "why"}, data.texts[why]) : null,
      same && parts.beside ? el("p", {class: "why"}, "word for word the same") : null,
      ...ratings.map(([judge, score, words]) => el("p", {class: "why"},
        `${data.texts[judge]}: ${score} of 2. ${data.texts[words]}`)));
  }

  function column(one, arm, shown) {
    const left = one.byArm.get(base()) || [];
    const pair = shown.length === 1;
    const isBase = arm === base();
    const other = isBase ? (pair ? one.byArm.get(shown[0]) || [] : []) : left;
    const answers = one.byArm.get(arm);
    const beside = new Map(other.map(answer => [answer[0], answer]));
    const kind = isBase ? "" : outcome(one, arm);
    const told = kind === "gained" || kind === "lost";
    return el("section", {class: isBase ? "answer base" : "answer"},
      el("h4", {}, data.arms[arm], told ? el("span", {class: `badge ${kind}`}, kind) : null),
      ...variants(answers, beside).map(variant => {
        const text = data.texts[variant.answer[1]];
        const against = variant.other === undefined ? null : data.texts[variant.other[1]];
        let parts = [["same", text]];
        if (against !== null && against !== text) {
          parts = isBase ? marks(text, against, "before")
            : marks(against, text, pair ? "after" : "both");
        }
        parts.beside = !isBase;
        return judged(variant, answers.length > 1, parts);
      }));
  }

  function card(one, number) {
    const group = data.groups[one.group];
    const shown = others().filter(arm => one.byArm.has(arm));
    const columns = [base(), ...shown].filter(arm => one.byArm.has(arm));
    const said = (name, text) => [el("dt", {}, name), el("dd", {dir: "auto"}, data.texts[text])];
    return el("article", {class: "case", "aria-labelledby": `case-${number}`},
      el("h3", {id: `case-${number}`, tabindex: "-1"}, one.name,
        el("span", {class: "tags"}, `${group.suite}, ${group.split} · ${one.task}`,
          one.control ? el("span", {class: "badge"}, "control") : null)),
      el("dl", {class: "asked"},
        ...said("Instruction", one.instruction), ...said("Query", one.query)),
      el("div", {class: columns.length === 2 ? "answers pair" : "answers"},
        ...columns.map(arm => column(one, arm, shown))));
  }

  function draw(count, focus = false) {
    const first = drawn;
    const cards = found.slice(drawn, drawn + count).map((one, k) => card(one, first + k));
    drawn += cards.length;
    list.append(...cards);
    const left = found.length - drawn;
    document.getElementById("more").hidden = !left;
    document.getElementById("next").textContent = `Show ${Math.min(PAGE, left)} more`;
    document.getElementById("rest").hidden = left <= PAGE;
    document.getElementById("count").textContent = found.length
      ? `${plural(found.length, "case")} of ${data.cases.length.toLocaleString("en")}`
        + (left ? `, the first ${drawn.toLocaleString("en")} shown` : "")
      : "No case matches.";
    if (focus && cards.length) cards[0].querySelector("h3").focus();
  }

  // --- the form ---

  function fillSelect(name, options) {
    const select = form.elements[name];
    if (state[name] && !options.some(([value]) => value === state[name])) {
      options.push([state[name], state[name]]);
    }
    select.replaceChildren(...options.map(([value, text]) => el("option", {value}, text)));
    select.value = state[name];
    select.closest("label").hidden = options.length < 2;
  }

  const named = (values, all) => {
    const distinct = [...new Set(values)];
    return [["", all], ...distinct.map(value => [value, value])];
  };

  function showForm() {
    const chosen = data.groups.filter(g => !state.suite || g.suite === state.suite);
    const inSuite = data.cases.filter(one => chosen.includes(data.groups[one.group]));
    fillSelect("suite", named(data.groups.map(g => g.suite), "all suites"));
    fillSelect("split", named(data.groups.map(g => g.split), "all splits"));
    fillSelect("task", named(inSuite.map(one => one.task), "all tasks"));
    const several = data.cases.some(one => one.answers.some(([, runs]) => runs.length > 1));
    const outcomes = Object.entries(OUTCOMES).filter(([name]) => several || name !== "mixed");
    fillSelect("outcome", [["", "any outcome"], ...outcomes]);
    fillSelect("with", [
      ["", data.arms[data.plain ?? 0]],
      ...data.arms.filter((_, arm) => arm !== (data.plain ?? 0)).map(arm => [arm, arm])]);
    for (const name of ["control", "q"]) form.elements[name].value = state[name];
    for (const box of form.querySelectorAll("[name=arm]")) {
      box.checked = state.arms.includes(Number(box.value));
      box.disabled = Number(box.value) === base();
    }
    const shown = others();
    document.getElementById("chosen").textContent = shown.length === 1
      ? data.arms[shown[0]] : `${shown.length} of ${Math.max(0, data.arms.length - 1)} shown`;
  }

  function fromForm() {
    for (const name of FILTERS) state[name] = form.elements[name].value;
    const boxes = [...form.querySelectorAll("[name=arm]:checked")];
    state.arms = boxes.map(box => Number(box.value));
    update();
    toAddress();
  }

  function update() {
    showForm();
    found = data.cases.filter(matches);
    drawn = 0;
    list.replaceChildren();
    draw(PAGE);
  }

  function setArms(arms) {
    state.arms = arms;
    update();
    toAddress();
  }

  function follow() {
    const filtered = fromAddress();
    update();
    if (filtered) document.getElementById("answers").scrollIntoView();
  }

  form.querySelector("fieldset").append(...data.arms.map((arm, number) =>
    el("label", {}, el("input", {type: "checkbox", name: "arm", value: number}), arm)));
  document.getElementById("arms").hidden = data.arms.length < 2;
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", event => {
    event.preventDefault();
    for (const name of FILTERS) state[name] = "";
    setArms([...data.first]);
  });
  let timer = 0;
  form.addEventListener("input", event => {
    clearTimeout(timer);
    timer = setTimeout(fromForm, event.target.name === "q" ? 150 : 0);
  });
  document.getElementById("all").addEventListener("click", () => setArms(data.arms.map((_, k) => k)));
  document.getElementById("few").addEventListener("click", () => setArms([...data.first]));
  document.getElementById("next").addEventListener("click", () => draw(PAGE, true));
  document.getElementById("rest").addEventListener("click", () => draw(found.length, true));
  window.addEventListener("hashchange", () => {
    if (!location.hash || location.hash.includes("=")) follow();
  });
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("main details:not(#arms)")) details.open = true;
  });
  form.hidden = false;
  follow();
})();
