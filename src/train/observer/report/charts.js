// SVG curves, redrawn when their width changes. All charts share one cursor.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 168, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 22;
const colour = (index) => `var(--c${index % 7})`;
const charts = [];
let smoothing = 0;

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Formats a number in a few characters. */
function short(value, percent) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (percent) return `${(100 * value).toFixed(1)}%`;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 999.5e6) return `${(value / 1e9).toFixed(1)}G`;
  if (size >= 999.5e3) return `${(value / 1e6).toFixed(1)}M`;
  if (size >= 9999.5) return `${(value / 1e3).toFixed(1)}k`;
  if (size >= 99.95) return value.toFixed(0);
  if (size >= 9.995) return String(Number(value.toFixed(1)));
  if (size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

/** Round tick values from `low` to `high`, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) {
    found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  }
  return found;
}

/** Exponential moving average with bias correction. */
function smoothed(points) {
  let sum = 0, weight = 0;
  return points.map(([x, y]) => {
    sum = smoothing * sum + (1 - smoothing) * y;
    weight = smoothing * weight + (1 - smoothing);
    return [x, sum / weight];
  });
}

const line = (points, x, y) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");

/** The value at the step, or at the last step before it. */
function valueAt(points, step) {
  let found = null;
  for (const [x, y] of points) {
    if (x > step) break;
    found = y;
  }
  return found;
}

/**
 * A card with a chart.
 * series: [{ label, colour, points: [[step, value]] }], in the order of the legend.
 * options: percent, stacked, dots, unit, first, last (the range of steps), top (the largest value to show).
 */
function chart(title, series, options = {}) {
  const legend = el("div", { class: "legend" });
  const place = el("div");
  const positive = series.every(({ points }) => points.every(([, y]) => y > 0));
  const values = series.flatMap(({ points }) => points.map(([, y]) => y));
  const wide = positive && Math.max(...values) > 20 * Math.min(...values);
  let logarithmic = false;
  const button = el("button", { type: "button", "aria-pressed": "false", title: "logarithmic scale" }, "log");
  const head = el("div", { class: "bar" }, el("h3", {}, title, options.unit ? el("span", { class: "dim small" }, ` ${options.unit}`) : ""));
  if (wide && !options.stacked && !options.percent) head.append(button);
  const card = el("section", { class: "card chart" }, head, legend, place);
  let cursor = null;
  let toX = null;

  function show(step) {
    legend.replaceChildren();
    if (step !== null) legend.append(el("span", {}, "step", el("b", {}, String(step))));
    for (const { label, colour, points, share } of series) {
      const value = step === null ? points.at(-1)[1] : valueAt(points, step);
      const text = share !== undefined && step === null ? `${(100 * share).toFixed(0)}%` : short(value, options.percent);
      legend.append(el("span", {}, el("i", { style: `background:${colour}` }), label, el("b", {}, text)));
    }
    if (cursor && toX) {
      cursor.setAttribute("visibility", step === null ? "hidden" : "visible");
      if (step !== null) { cursor.setAttribute("x1", toX(step)); cursor.setAttribute("x2", toX(step)); }
    }
  }

  function layers() {
    if (!options.stacked) return series;
    const base = new Map();
    return series.map((one) => {
      const lower = one.points.map(([x]) => [x, base.get(x) ?? 0]);
      const upper = one.points.map(([x, y], i) => [x, lower[i][1] + y]);
      upper.forEach(([x, y]) => base.set(x, y));
      return { ...one, lower, points: upper };
    });
  }

  function draw() {
    const width = Math.max(place.clientWidth, 200);
    const shown = layers();
    const all = shown.flatMap(({ points }) => points.map(([, y]) => y));
    let low = Math.min(...all), high = Math.max(...all, options.top ?? -Infinity);
    if (options.percent) { low = 0; high = Math.max(high, high > 0.5 ? 1 : 0.1); }
    else if (options.stacked || (low > 0 && low < 0.4 * high && !logarithmic)) low = 0;
    if (high - low <= 1e-9 * Math.abs(high)) { low -= Math.abs(low) * 0.1 || 1; high += Math.abs(high) * 0.1 || 1; }
    const scale = logarithmic ? Math.log10 : (value) => value;
    const bottom = scale(low), top = scale(high);
    const x = toX = (step) => LEFT + (step - options.first) / Math.max(options.last - options.first, 1) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (top - scale(value)) / (top - bottom) * (HEIGHT - TOP - BOTTOM);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": title });
    const marks = logarithmic
      ? ticks(bottom, top, 4).map((power) => 10 ** power)
      : ticks(low, high, 5);
    for (const mark of marks) {
      picture.append(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark) }));
      const label = options.percent ? `${Math.round(100 * mark)}%` : short(mark);
      picture.append(svg("text", { x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end" }, label));
    }
    for (const mark of ticks(options.first, options.last, width / 70)) {
      if (!Number.isInteger(mark)) continue;
      picture.append(svg("text", { x: x(mark), y: HEIGHT - 5, "text-anchor": x(mark) > width - 24 ? "end" : "middle" }, String(mark)));
    }
    for (const { points, lower, colour } of shown) {
      if (options.stacked) {
        const outline = line(points, x, y) + line(lower.slice().reverse(), x, y).replace("M", "L") + "Z";
        picture.append(svg("path", { d: outline, style: `fill:${colour};opacity:.75` }));
        continue;
      }
      const sparse = options.dots || points.length <= 40;
      const smooth = !sparse && !options.exact && smoothing > 0;
      if (smooth) picture.append(svg("path", { class: "raw", d: line(points, x, y), style: `stroke:${colour}` }));
      const best = smooth ? smoothed(points) : points;
      picture.append(svg("path", { class: "smooth", d: line(best, x, y), style: `stroke:${colour}` }));
      if (sparse && points.length <= 60 && (options.dots || points.length < 2 || points.length < (options.last - options.first) / 2)) {
        for (const [a, b] of points) picture.append(svg("circle", { cx: x(a), cy: y(b), r: 2.6, style: `fill:${colour}` }));
      }
    }
    cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    picture.append(cursor);
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const share = (event.clientX - box.left - LEFT) / (width - LEFT - RIGHT);
      const step = Math.round(options.first + share * (options.last - options.first));
      point(Math.min(Math.max(step, options.first), options.last));
    });
    picture.addEventListener("pointerleave", () => point(null));
    place.replaceChildren(picture);
    show(null);
  }

  button.addEventListener("click", () => {
    logarithmic = !logarithmic;
    button.setAttribute("aria-pressed", String(logarithmic));
    draw();
  });
  charts.push({ draw, show, place });
  return card;
}

/** Moves the cursor of every chart to a step, or hides it. */
function point(step) {
  for (const one of charts) one.show(step);
}

/** Draws all charts. */
function drawCharts() {
  for (const one of charts) one.draw();
}
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(drawCharts, 80);
});
