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
    const save = make("button", { type: "button", textContent: "Save as CSV" });
    save.setAttribute("aria-label", `Save as CSV: ${label}`);
    save.addEventListener("click", () => {
      const file = new Blob([csvOf(table) + "\n"], { type: "text/csv" });
      const link = make("a", { href: URL.createObjectURL(file), download: `${table.id}.csv` });
      link.click();
      URL.revokeObjectURL(link.href);
    });
    tools.append(save);
    table.parentElement.before(tools);
  }

  // Commands can be copied.
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
