// Sample rollouts, filtered by run, step, reward, end and text, in pages of fifty.
const PAGE = 50;

function samples() {
  const rows = runs.flatMap((run, of) => run.samples.rows.map((row) => ({ ...row, of, run, prompt: run.samples.prompts[row.problem] })));
  if (rows.length === 0) return [];
  const known = rows.map((row) => row.reward).filter((reward) => reward !== null);
  const [least, most] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 0];
  const steps = [...new Set(rows.map((row) => row.step))].sort((a, b) => a - b);

  const select = (label, options) => {
    const node = el("select", { "aria-label": label });
    for (const [value, text] of options) node.append(el("option", { value }, text));
    return node;
  };
  const number = (label, value) => el("input", { type: "number", step: "any", value, "aria-label": label });
  const ofRun = select("run", [["", "all runs"], ...runs.map((run, index) => [String(index), run.name])]);
  const ofStep = select("step", [["", "all steps"], ...steps.map((step) => [String(step), `step ${step}`])]);
  const ofEnd = select("end", [["", "any end"], ["stop", "ended"], ["length", "truncated"]]);
  const order = select("order", [["", "in order"], ["high", "highest reward"], ["low", "lowest reward"], ["long", "longest"]]);
  const from = number("least reward", least), to = number("largest reward", most);
  const text = el("input", { type: "search", placeholder: "search prompts and completions", "aria-label": "search" });
  const histogram = el("div", { class: "histogram" });
  const list = el("div", { class: "card samples" });
  const count = el("span", { class: "dim small number" });
  // By default the latest step that all runs have, or else all steps.
  const common = steps.filter((step) => runs.every((run) => run.samples.rows.some((row) => row.step === step)));
  if (steps.length > 1 && common.length) ofStep.value = String(common.at(-1));
  let shown = PAGE;

  function matching(withReward) {
    const words = text.value.toLowerCase();
    const found = rows.filter((row) =>
      (ofRun.value === "" || row.of === Number(ofRun.value)) &&
      (ofStep.value === "" || row.step === Number(ofStep.value)) &&
      (ofEnd.value === "" || row.finish === ofEnd.value) &&
      (words === "" || row.text.toLowerCase().includes(words) || row.prompt[0].toLowerCase().includes(words)));
    if (!withReward) return found;
    const [low, high] = [from.value === "" ? -Infinity : Number(from.value), to.value === "" ? Infinity : Number(to.value)];
    const whole = low <= least && high >= most;
    return found.filter(({ reward }) => (reward === null ? whole : reward >= low - 1e-9 && reward <= high + 1e-9));
  }

  function drawHistogram() {
    if (most <= least) return histogram.replaceChildren();
    const bins = 24;
    const counts = new Array(bins).fill(0);
    const bin = (reward) => Math.min(bins - 1, Math.floor((reward - least) / (most - least) * bins));
    for (const { reward } of matching(false)) if (reward !== null) counts[bin(reward)] += 1;
    const high = Math.max(...counts, 1);
    const chart = svg("svg", { viewBox: "0 0 240 30", height: 30, preserveAspectRatio: "none", role: "img", "aria-label": "rewards of the rollouts" });
    counts.forEach((count, index) => {
      const size = count ? Math.max(2, 28 * count / high) : 0;
      const inside = index >= bin(Math.max(least, Number(from.value))) && index <= bin(Math.min(most, Number(to.value)));
      const bar = svg("rect", { x: index * 10 + 0.5, y: 30 - size, width: 9, height: size, class: inside ? "in" : "" });
      bar.append(svg("title", {}, `${count} rollouts`));
      chart.append(bar);
    });
    histogram.replaceChildren(chart);
  }

  function sample(row) {
    const outcomes = row.rewards.map(([name, outcome]) =>
      el("span", { class: "chip" }, `${name} ${typeof outcome === "number" ? short(outcome) : outcome}`));
    const block = (title, content) => el("div", {}, el("div", { class: "dim small" }, title), el("pre", {}, content));
    const detail = el("details", { class: "sample" },
      el("summary", {},
        el("span", { class: "dim number" }, runs.length > 1 ? el("i", { class: "swatch", style: `background:${colour(row.of)}` }) : "", `${row.step}`),
        el("span", { class: "reward" }, short(row.reward)),
        el("span", { class: "dim number" }, `${row.tokens} tok${row.finish === "length" ? " ✂" : ""}`),
        el("span", { class: "dim small scores cut" }, row.rewards.map(([name, outcome]) =>
          `${name} ${typeof outcome === "number" ? short(outcome) : "–"}`).join(" · ")),
        el("span", { class: "cut prompt" }, row.prompt[0].slice(0, 200)),
        el("span", { class: "cut" }, row.text.slice(0, 300) || "(empty)")));
    // Details are built when they are opened.
    detail.addEventListener("toggle", () => {
      if (detail.open && detail.children.length === 1) {
        const facts = [`sample ${row.sample}`, row.finish === "length" ? "truncated at the length limit" : "ended"];
        if (row.entropy !== null) facts.push(`entropy ${short(row.entropy)} nats per token`);
        detail.append(el("div", { class: "body" },
          el("div", { class: "chips" }, ...outcomes, ...facts.map((fact) => el("span", { class: "chip dim" }, fact))),
          block("prompt", row.prompt[0]), block("reference answer", row.prompt[1] || "(none)"), block("completion", row.text)));
      }
    });
    return detail;
  }

  function update() {
    const found = matching(true);
    const key = { high: (row) => -(row.reward ?? -Infinity), low: (row) => row.reward ?? Infinity, long: (row) => -row.tokens }[order.value];
    if (key) found.sort((a, b) => key(a) - key(b));
    const kept = runs.reduce((sum, run) => sum + run.samples.kept, 0);
    const held = kept > rows.length ? ` (of ${kept} kept)` : "";
    count.textContent = `${found.length} of ${rows.length} rollouts${held}`;
    list.replaceChildren(...found.slice(0, shown).map(sample));
    if (found.length === 0) list.append(el("p", { class: "dim more" }, "No matching rollouts."));
    if (found.length > shown) {
      const more = el("button", { type: "button" }, `Show ${Math.min(PAGE, found.length - shown)} more`);
      more.addEventListener("click", () => { shown += PAGE; update(); });
      list.append(el("div", { class: "more" }, more));
    }
    drawHistogram();
  }

  for (const input of [ofRun, ofStep, ofEnd, order, from, to, text]) {
    input.addEventListener("input", () => { shown = PAGE; update(); });
  }
  update();
  return [
    el("div", { class: "bar" }, el("h2", {}, "Sample rollouts"), count),
    el("div", { class: "filters" }, runs.length > 1 ? ofRun : "", ofStep, ofEnd, order,
      el("label", {}, "reward", from, "to", to, histogram), text),
    list,
  ];
}
