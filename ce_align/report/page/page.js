"use strict";
(() => {
  const say = (text) => { document.getElementById("status").textContent = text; };
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const collator = new Intl.Collator("en", { numeric: true });

  // Sorting: a button in every heading. Missing values stay last either way.
  const keyOf = (cell) => {
    if (cell.dataset.key !== undefined) return Number(cell.dataset.key);
    const text = cell.textContent.trim();
    return text === "–" || text === "" ? null : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
  const sort = (table, column, heading) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const lines = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[column]), row]);
    lines.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return down ? compare(b, a) : compare(a, b);
    });
    table.tBodies[0].append(...lines.map(([, row]) => row));
    say(`Sorted by ${heading.textContent}, ${down ? "descending" : "ascending"}`);
  };
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csvOf = (table) => [...table.rows].map((row) => [...row.cells]
    .map((cell) => quoted(cell.dataset.key ?? cell.textContent.trim())).join(",")).join("\n");

  // A button that saves what `text` gives as a file.
  const saver = (kind, label, name, type, text) => {
    const button = make("button", { type: "button", textContent: `Save as ${kind}` });
    button.setAttribute("aria-label", `Save as ${kind}: ${label}`);
    button.addEventListener("click", () => {
      const link = make("a", { href: URL.createObjectURL(new Blob([text()], { type })), download: name });
      link.click();
      URL.revokeObjectURL(link.href);
    });
    return button;
  };

  for (const table of document.querySelectorAll("table")) {
    const label = table.caption.textContent;
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = make("button", { type: "button" });
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(table, column, heading));
      heading.replaceChildren(button);
    });
    const tools = make("div", { className: "tools" });
    if (table.tBodies[0].rows.length > 10) {
      const filter = make("input", { type: "search", id: `${table.id}-filter` });
      filter.addEventListener("input", () => {
        const wanted = filter.value.toLowerCase().split(/\s+/);
        let n = 0;
        for (const row of table.tBodies[0].rows) {
          const text = row.textContent.toLowerCase();
          row.hidden = !wanted.every((word) => text.includes(word));
          n += !row.hidden;
        }
        say(`${n} rows`);
      });
      tools.append(make("label", { htmlFor: filter.id, textContent: "Show rows with" }), filter);
    }
    tools.append(saver("CSV", label, `${table.id}.csv`, "text/csv", () => csvOf(table) + "\n"));
    table.parentElement.before(tools);
  }

  // Figures are saved as they stand in the page, their numbers from the table below.
  for (const tools of document.querySelectorAll("[data-figure]")) {
    const name = tools.dataset.figure;
    const plot = document.querySelector(`#${name} .wide svg`);
    const data = document.getElementById(`${name}-data`);
    tools.prepend(
      saver("SVG", name, `${name}.svg`, "image/svg+xml", () => new XMLSerializer().serializeToString(plot)),
      saver("CSV", name, `${name}.csv`, "text/csv", () => csvOf(data) + "\n"));
  }

  // Commands, methods and references can be copied.
  for (const block of document.querySelectorAll("pre")) {
    const code = block.querySelector("code");
    const copy = make("button", { type: "button", textContent: "Copy" });
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        say("Copied");
      } catch {
        getSelection().selectAllChildren(code);
        say("Selected");
      }
    });
    block.append(copy);
  }

  // The scatter of networks: any number against any other.
  const holder = document.getElementById("scatter-data");
  if (holder) {
    const { axes, x, y, points } = JSON.parse(holder.textContent);
    const plot = document.getElementById("scatter-plot");
    const named = document.getElementById("scatter-named");
    const choices = ["x", "y"].map((name) => document.getElementById(`scatter-${name}`));
    const frame = { left: 66, right: 548, top: 12, bottom: 330 };
    const draw = (tag, properties, text = "") => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
      element.textContent = text;
      plot.append(element);
      return element;
    };
    const shown = (value) => Number(value.toPrecision(4)).toString().replace("-", "−");
    // Round steps, about five over the range.
    const ticksOf = (low, high) => {
      const raw = (high - low) / 5, size = 10 ** Math.floor(Math.log10(raw));
      const step = [1, 2, 5, 10].map((k) => k * size).find((k) => k >= raw);
      const first = Math.ceil(low / step);
      return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, k) => (first + k) * step);
    };
    const rangeOf = (values) => {
      const low = Math.min(...values), high = Math.max(...values);
      const room = (high - low || Math.abs(high) || 1) * 0.06;
      return [low - room, high + room];
    };
    const redraw = () => {
      const [across, up] = choices.map((choice) => choice.value);
      const own = points.filter(({ values }) => across in values && up in values);
      plot.replaceChildren();
      if (!own.length) {
        draw("text", { x: 280, y: 180, "text-anchor": "middle" }, "no network has both");
        return;
      }
      const [left, right] = rangeOf(own.map(({ values }) => values[across]));
      const [low, high] = rangeOf(own.map(({ values }) => values[up]));
      const px = (value) => frame.left + (value - left) / (right - left) * (frame.right - frame.left);
      const py = (value) => frame.bottom - (value - low) / (high - low) * (frame.bottom - frame.top);
      for (const tick of ticksOf(left, right)) {
        draw("line", { x1: px(tick), x2: px(tick), y1: frame.top, y2: frame.bottom, class: "grid" });
        draw("text", { x: px(tick), y: frame.bottom + 18, "text-anchor": "middle" }, shown(tick));
      }
      for (const tick of ticksOf(low, high)) {
        draw("line", { x1: frame.left, x2: frame.right, y1: py(tick), y2: py(tick), class: "grid" });
        draw("text", { x: frame.left - 8, y: py(tick) + 4, "text-anchor": "end" }, shown(tick));
      }
      draw("text", { x: (frame.left + frame.right) / 2, y: 368, "text-anchor": "middle", class: "axis" }, `${axes[across]} (n = ${own.length})`);
      draw("text", { x: 0, y: 0, transform: "translate(14 170) rotate(-90)", "text-anchor": "middle", class: "axis" }, axes[up]);
      for (const { label, model, colour, values } of own) {
        const text = `${label}${label === model ? "" : ` (${model})`}: ${shown(values[across])}, ${shown(values[up])}`;
        const dot = draw("circle", { cx: px(values[across]), cy: py(values[up]), r: 6, fill: colour, tabindex: 0, role: "img", "aria-label": text });
        for (const event of ["pointerenter", "focus"]) {
          dot.addEventListener(event, () => { named.textContent = text; });
        }
      }
    };
    choices.forEach((choice, place) => {
      for (const [key, title] of Object.entries(axes)) {
        choice.append(make("option", { value: key, textContent: title, selected: key === (place ? y : x) }));
      }
      choice.addEventListener("change", redraw);
    });
    redraw();
  }

  // A link into a folded part unfolds it, and unhides a row that a filter hid.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    target.hidden = false;
    for (let part = target; part; part = part.parentElement) {
      if (part.tagName === "DETAILS") part.open = true;
    }
    target.scrollIntoView({ block: target.tagName === "TR" ? "center" : "start" });
  };
  addEventListener("hashchange", reveal);
  reveal();

  // On a narrow screen the contents would fill it.
  if (matchMedia("(max-width: 63.99rem)").matches) {
    document.querySelector("nav details").open = false;
  }
})();
