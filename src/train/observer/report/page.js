// The page of one run, or of several beside each other.
const { runs } = JSON.parse(document.getElementById("data").textContent);

/** Creates an element. Children are inserted as text, because completions are untrusted. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** The measured values of a metric: [[step, value]]. */
function points(run, name) {
  const values = run.metrics[name] ?? [];
  return values.flatMap((value, index) => (value === null ? [] : [[run.steps[index], value]]));
}

const last = (run, name) => points(run, name).at(-1)?.[1] ?? null;
const total = (run, name) => run.totals[name] ?? null;
const several = runs.length > 1;

// ---- summary

function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 90) return `${seconds.toFixed(0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** The last value of a metric, and the first. */
function course(run, name, percent) {
  const values = points(run, name);
  if (values.length === 0) return null;
  const [first, final] = [values[0][1], values.at(-1)[1]];
  return [short(final, percent), values.length === 1 ? "" : `from ${short(first, percent)}`];
}

const alone = (value) => (value === null ? null : [value, ""]);
const FACTS = [
  ["held-out accuracy", (run) => course(run, "eval/accuracy", true)],
  ["best held-out accuracy", (run) => {
    const best = points(run, "eval/accuracy").reduce((best, one) => (one[1] > (best?.[1] ?? -1) ? one : best), null);
    return best && [short(best[1], true), `at step ${best[0]}`];
  }],
  ["reward", (run) => course(run, "reward")],
  ["tokens per completion", (run) => course(run, "completions/mean_length")],
  ["KL to the reference", (run) => course(run, "kl")],
  ["entropy", (run) => course(run, "entropy")],
  ["time of all steps", (run) => alone(total(run, "time/step") && duration(total(run, "time/step") + (total(run, "time/eval") ?? 0)))],
  ["tokens trained on", (run) => alone(last(run, "num_tokens") && short(last(run, "num_tokens")))],
  ["cost", (run) => alone(total(run, "cost") && short(total(run, "cost")))],
];

function facts() {
  const rows = FACTS.map(([label, of]) => [label, runs.map(of)]).filter(([, values]) => values.some((value) => value !== null));
  if (!several) {
    return el("div", { class: "tiles" }, ...rows.map(([label, [[value, aside]]]) =>
      el("div", { class: "card tile" }, el("div", { class: "dim small" }, label), el("div", { class: "number" },
        el("span", { class: "value" }, value), " ", el("span", { class: "dim small" }, aside)))));
  }
  const names = runs.map((run, index) => el("th", {}, el("i", { class: "swatch", style: `background:${colour(index)}` }), run.name));
  const cell = (value) => el("td", {}, ...(value === null ? ["–"] : [el("b", {}, value[0]), " ", el("span", { class: "dim small" }, value[1])]));
  return el("div", { class: "card scroll", style: "margin-top:20px" }, el("table", { class: "summary number" },
    el("tr", {}, el("th", {}), ...names),
    ...rows.map(([label, values]) => el("tr", {}, el("th", {}, label), ...values.map(cell)))));
}

// ---- findings

function steps(first, final) {
  return first === final ? `step ${first}` : `steps ${first}–${final}`;
}

function finding({ name, severity, first_step, last_step, evidence, advice }) {
  return el("div", { class: `card finding is-${severity}` },
    el("div", { class: "head" }, el("code", {}, name), el("span", { class: `pill ${severity}` }, severity),
      el("span", { class: "dim small" }, steps(first_step, last_step))),
    el("p", {}, ...prose(evidence)), el("p", { class: "dim" }, ...prose(advice)));
}

/** Renders a sentence; text between backticks is code. */
function prose(text) {
  const sentence = `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
  return sentence.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

function findings(run, index) {
  const column = el("div", { class: "findings" });
  if (several) column.append(el("h3", {}, el("i", { class: "swatch", style: `background:${colour(index)}` }), run.name));
  column.append(...run.findings.map(finding));
  if (run.findings.length === 0) {
    column.append(el("div", { class: "card finding is-healthy" }, el("p", { style: "margin:0" },
      `No findings in the last steps. ${run.earlier.length ? "" : "No earlier findings were recorded."}`)));
  }
  if (run.earlier.length) {
    column.append(el("details", { class: "card" }, el("summary", {}, `Recorded during the run: ${run.earlier.length}`),
      ...run.earlier.map((one) => el("p", { class: "small" }, el("span", { class: `pill ${one.severity}` }, one.severity), " ",
        el("code", {}, one.name), ` ${steps(one.first_step, one.last_step)}, at ${one.steps} of them`))));
  }
  return column;
}

// ---- charts

const PANELS = [
  { title: "Reward", names: ["reward", "dynamic_sampling/reward", "baseline/reward"] },
  { title: "Rewards by name", match: /^rewards\/(.+)\/mean$/ },
  { title: "Held-out accuracy", names: ["eval/accuracy"], match: /^eval\/(pass@.+)$/, percent: true, dots: true },
  { title: "Completion length", unit: "tokens", names: ["completions/mean_length", "completions/max_length", "eval/mean_length"] },
  { title: "No signal, truncated", unit: "share", percent: true,
    names: ["frac_reward_zero_std", "dynamic_sampling/frac_zero_std", "completions/clipped_ratio"] },
  { title: "KL to the reference", unit: "nats per token", names: ["kl"] },
  { title: "Entropy", unit: "nats per token", names: ["entropy"] },
  { title: "Gradient norm", names: ["grad_norm", "value/grad_norm"] },
  { title: "Tokens outside the clip range", unit: "share", percent: true, names: ["clip_ratio/region_mean", "clip_ratio/bounded_mean"] },
  { title: "Advantages", names: ["advantages/max", "advantages/rms", "advantages/min"] },
  { title: "Learning rate", names: ["learning_rate"], exact: true },
  { title: "Sampler mismatch", unit: "KL", names: ["rollout_corr/k3_kl"] },
  { title: "Failed rewards", unit: "completions", match: /^rewards\/(.+\/(?:failed|timed_out))$/, busy: true },
  { title: "Domains", unit: "of the batch", match: /^domains\/(.+\/(?:tokens|rollouts))$/ },
  { title: "Time of a step by phase", unit: "s", stacked: true,
    names: ["time/generate", "time/reward", "time/prepare", "time/update", "time/eval"] },
  { title: "Tokens per second", names: ["tokens_per_second"] },
  { title: "Cost", match: /^(cost.*)$/ },
];
const LABELS = {
  "frac_reward_zero_std": "groups without signal", "dynamic_sampling/frac_zero_std": "all groups without signal",
  "completions/clipped_ratio": "truncated", "dynamic_sampling/reward": "all groups", "baseline/reward": "greedy baseline",
  "eval/mean_length": "held out", "clip_ratio/region_mean": "outside", "clip_ratio/bounded_mean": "bounded",
  "grad_norm": "policy", "value/grad_norm": "critic",
};
const label = (name, match) => LABELS[name] ?? name.match(match ?? /(?!)/)?.[1] ?? name.replace(/^.*\//, "").replaceAll("_", " ");

const names = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))].sort();
const first = Math.min(...runs.map((run) => run.steps[0] ?? 0));
const final = Math.max(...runs.map((run) => run.steps.at(-1) ?? 1));
const range = { first, last: Math.max(final, first + 1) };

/** The charts of a panel: one, or one per metric if there are several runs. */
function panel({ title, names: listed = [], match, busy, ...options }) {
  const found = [...listed.filter((name) => names.includes(name)), ...names.filter((name) => match?.test(name) && !listed.includes(name))];
  found.forEach((name) => charted.add(name));
  const measured = found.filter((name) => runs.some((run) => points(run, name).length > 0));
  if (measured.length === 0 || (busy && measured.every((name) => runs.every((run) => points(run, name).every(([, y]) => y === 0))))) return [];
  if (options.stacked) {
    const tops = runs.map((run) => Math.max(...run.steps.map((_, at) => measured.reduce((sum, name) => sum + (run.metrics[name]?.[at] ?? 0), 0))));
    return runs.map((run, index) => {
      const series = stack(run, measured);
      const heading = several ? `${title}: ${run.name}` : title;
      return series.length ? chart(heading, series, { ...options, ...range, top: Math.max(...tops) }) : "";
    });
  }
  if (!several) {
    const series = measured.map((name, index) => ({ label: label(name, match), colour: colour(index), points: points(runs[0], name) }));
    return [chart(title, series, { ...options, ...range })];
  }
  return measured.map((name) => {
    const heading = measured.length === 1 ? title : `${title}: ${label(name, match)}`;
    const series = runs.map((run, index) => ({ label: run.name, colour: colour(index), points: points(run, name) }));
    return chart(heading, series.filter(({ points }) => points.length), { ...options, ...range });
  });
}

/** Stacks the phases; a missing phase has duration 0. */
function stack(run, measured) {
  const shown = measured.filter((name) => points(run, name).length > 0);
  const at = run.steps.map((step, index) => [step, index]).filter(([, index]) => shown.some((name) => run.metrics[name][index] !== null));
  const sum = shown.reduce((sum, name) => sum + (total(run, name) ?? 0), 0);
  return shown.map((name, index) => ({
    label: label(name), colour: colour(index), share: (total(run, name) ?? 0) / (sum || 1),
    points: at.map(([step, index]) => [step, run.metrics[name][index] ?? 0]),
  }));
}

const charted = new Set();
const main = document.querySelector("main");
const verdicts = runs.map((run) => el("span", { class: `pill ${run.verdict}` }, several ? `${run.name}: ${run.verdict}` : run.verdict));
const title = several ? runs.map((run) => run.name).join(" and ") : runs[0].name;
document.title = title;
main.replaceChildren(el("header", {}, el("h1", {}, title),
  el("div", { class: "line" }, ...verdicts, ...runs.map((run) => el("span", { class: "dim small number" },
    `${several ? `${run.name}: ` : ""}${run.count} steps recorded, to step ${run.steps.at(-1) ?? 0}`)))));
main.append(facts());

main.append(el("h2", {}, "Findings"), el("div", { class: several ? "columns" : "" }, ...runs.map(findings)));

const count = Math.max(...runs.map((run) => run.steps.length));
smoothing = count < 30 ? 0 : count < 120 ? 0.7 : 0.88;
const slider = el("input", { type: "range", min: 0, max: 0.97, step: 0.01, value: smoothing, "aria-label": "smoothing" });
slider.addEventListener("input", () => { smoothing = Number(slider.value); drawCharts(); });
const grid = el("div", { class: "charts" }, ...PANELS.flatMap(panel));
main.append(el("div", { class: "bar" }, el("h2", {}, "Curves"), el("label", {}, "smoothing", slider)), grid);
const others = names.filter((name) => !charted.has(name) && !name.startsWith("findings/"));
if (others.length) {
  const inside = el("div", { class: "charts", style: "margin-top:12px" });
  const all = el("details", { style: "margin-top:14px" }, el("summary", { class: "dim" }, `${others.length} more metrics`), inside);
  all.addEventListener("toggle", () => {
    if (all.open && inside.children.length === 0) {
      inside.append(...others.flatMap((name) => panel({ title: name, names: [name] })));
      drawCharts();
    }
  });
  main.append(all);
}

main.append(...samples());

// ---- configuration

const keys = [...new Set(runs.flatMap((run) => run.configuration.map(([key]) => key)))];
if (keys.length) {
  const of = runs.map((run) => new Map(run.configuration));
  const table = el("table", { class: "configuration" });
  if (several) table.append(el("tr", {}, el("th", {}), ...runs.map((run) => el("th", {}, run.name))));
  let different = 0;
  for (const key of keys) {
    const values = of.map((map) => map.get(key) ?? "–");
    const differs = several && values.some((value) => value !== values[0]);
    different += differs ? 1 : 0;
    table.append(el("tr", { class: differs ? "differs" : "" }, el("td", {}, el("code", {}, key)), ...values.map((value) => el("td", {}, el("code", {}, value)))));
  }
  const only = el("input", { type: "checkbox" });
  only.addEventListener("input", () => {
    for (const row of table.querySelectorAll("tr")) row.hidden = only.checked && row.querySelector("td") && !row.classList.contains("differs");
  });
  main.append(el("h2", {}, "Configuration"), el("details", { class: "card", ...(several ? { open: "" } : {}) },
    el("summary", {}, several ? `${keys.length} settings, ${different} of them different` : `${keys.length} settings`),
    several ? el("label", { style: "margin:8px 0" }, only, "only differences") : "",
    el("div", { class: "scroll", style: "margin-top:8px" }, table)));
}
drawCharts();
