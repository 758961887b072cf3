"use strict";
// What the pages do: tables that are searched and sorted, embeddings, text to copy. Cells are set as text, never as HTML.

const unpack = async (id) => {
  const text = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const lines = (await new Response(stream).text()).trimEnd().split("\n");
  return {header: lines[0].split("\t"), rows: lines.slice(1).map((line) => line.split("\t"))};
};

const inOrder = (x, y) => {
  if (x === "" || y === "") return (x === "") - (y === "");
  return isNaN(x) || isNaN(y) ? x.localeCompare(y, "en", {numeric: true}) : x - y;
};

// Empty cells come last in both directions.
const sorted = (items, value, down) => [...items].sort((a, b) => {
  const [x, y] = [value(a), value(b)];
  return down && x !== "" && y !== "" ? -inOrder(x, y) : inOrder(x, y);
});

const sortable = (table, sort) => {
  const cells = [...table.tHead.rows[0].cells];
  cells.forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") === "ascending";
      for (const other of cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(column, down);
    });
  });
};

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  sortable(table, (column, down) => {
    body.append(...sorted(body.rows, (row) => row.cells[column].textContent.trim(), down));
  });
}

const PAGE = 50;

// The reader's ratings as columns of a table of scans; none where this browser keeps nothing.
const withRatings = (box, header, rows) => {
  const scan = header.indexOf("scan"), first = header.length;
  header.push("rating", "note");
  const ratings = ratingsOf(box.dataset.cohort);
  const refresh = () => {
    const all = ratings.read();
    for (const row of rows) {
      const own = all.get(row[scan]);
      [row[first], row[first + 1]] = [own?.rating ?? "", own?.note ?? ""];
    }
  };
  refresh();
  box.querySelector("button.export").addEventListener("click", ratings.export);
  return refresh;
};

// Small pictures of rows: sheets are decoded when one of their rows is shown.
const sheets = new Map();
const tile = ({pixels, across, each}, n, name) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height, canvas.className] = [pixels, pixels, "tile"];
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Picture of ${name}`);
  const sheet = Math.floor(n / each);
  if (!sheets.has(sheet)) {
    const image = new Image();
    image.src = document.getElementById(`sheet-${sheet}`).textContent;
    sheets.set(sheet, image.decode().then(() => image));
  }
  const [x, y] = [(n % each) % across, Math.floor((n % each) / across)];
  sheets.get(sheet).then((image) => {
    canvas.getContext("2d").drawImage(image, x * pixels, y * pixels, pixels, pixels, 0, 0, pixels, pixels);
    canvas.dataset.ready = "true";
  });
  return canvas;
};

const explore = async (box) => {
  const {header, rows} = await unpack(box.dataset.table);
  const table = box.querySelector("table");
  const place = (name) => header.indexOf(name);
  const refresh = box.dataset.cohort ? withRatings(box, header, rows) : null;
  const columns = [...table.tHead.rows[0].cells].map((cell) => ({
    at: place(cell.dataset.name), number: cell.classList.contains("n"), link: place(cell.dataset.link ?? ""), name: cell.dataset.name,
  }));
  const [scan, drawn] = [place("scan"), box.dataset.pixels ? place("tile") : -1];
  const sizes = {pixels: Number(box.dataset.pixels), across: Number(box.dataset.across), each: Number(box.dataset.each)};
  const texted = () => rows.map((row) => row.filter((_, n) => n !== drawn).join(" ").toLowerCase());
  let texts = texted();
  const all = rows.map((_, n) => n);
  const search = box.querySelector("input[type=search]");
  const selects = [...box.querySelectorAll("select")];
  const [back, next, keep] = ["back", "next", "save"].map((name) => box.querySelector(`button.${name}`));
  const count = box.querySelector("[role=status]");
  let order = all, shown = all, first = 0;

  const cell = (row, column, n) => {
    const item = document.createElement(n ? "td" : "th");
    if (!n) item.scope = "row";
    item.className = column.number ? "n" : n ? ["reason", "rating"].includes(column.name) ? "long" : "" : "nowrap";
    const text = row[column.at] ?? "";
    const address = column.link < 0 ? "" : row[column.link];
    if (address) {
      const link = document.createElement("a");
      link.href = address;
      link.textContent = text;
      item.append(link);
    } else if (column.at === drawn) {
      if (text !== "") item.append(tile(sizes, Number(text), row[scan]));
    } else if (column.name === "verdict") {
      const badge = document.createElement("span");
      badge.className = `badge ${text === "included" ? "good" : "bad"}`;
      badge.textContent = text;
      item.append(badge);
    } else if (column.name === "rating") {
      const badge = document.createElement("span");
      badge.className = `badge ${{good: "good", doubtful: "open", bad: "bad"}[text] ?? ""}`;
      badge.textContent = text;
      if (text) item.append(badge, row[place("note")] ? ` ${row[place("note")]}` : "");
    } else {
      item.textContent = text;
    }
    return item;
  };
  const draw = () => {
    const page = shown.slice(first, first + PAGE);
    table.tBodies[0].replaceChildren(...page.map((n) => {
      const line = document.createElement("tr");
      line.append(...columns.map((column, at) => cell(rows[n], column, at)));
      return line;
    }));
    const number = (n) => n.toLocaleString("en");
    const of = shown.length === rows.length ? "" : `, ${number(rows.length)} in all`;
    count.textContent = page.length
      ? `${number(first + 1)} to ${number(first + page.length)} of ${number(shown.length)}${of}` : `Nothing found${of}`;
    back.disabled = first === 0;
    next.disabled = first + PAGE >= shown.length;
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = selects.filter((select) => select.selectedIndex > 0)
      .map((select) => [place(select.dataset.name), select.value]);
    shown = order.filter((n) => words.every((word) => texts[n].includes(word))
      && chosen.every(([at, value]) => rows[n][at] === value));
    first = 0;
    draw();
  };
  const turn = (by) => () => {
    first += by;
    draw();
  };
  sortable(table, (column, down) => {
    order = sorted(all, (n) => rows[n][columns[column].at] ?? "", down);
    filter();
  });
  search.addEventListener("input", filter);
  for (const select of selects) select.addEventListener("change", filter);
  back.addEventListener("click", turn(-PAGE));
  next.addEventListener("click", turn(PAGE));
  if (refresh) {
    addEventListener("focus", () => {
      refresh();
      texts = texted();
      filter();
    });
  }
  const find = () => { // pictures.html#scan
    const name = decodeURIComponent(location.hash.slice(1));
    if (!rows.some((row) => row[scan] === name)) return;
    search.value = name;
    filter();
    box.scrollIntoView();
  };
  keep.addEventListener("click", () => save(box.dataset.file, header, shown.map((n) => rows[n])));
  draw();
  box.hidden = false;
  if (drawn >= 0) {
    addEventListener("hashchange", find);
    find();
  }
};

const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d31", "#7f7f7f"];
const NONE = "#8a949c";
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const ramp = (share) => {
  const at = Math.min(SCALE.length - 1.001, Math.max(0, share) * (SCALE.length - 1));
  const [low, high] = [SCALE[Math.floor(at)], SCALE[Math.floor(at) + 1]];
  return `rgb(${low.map((value, n) => Math.round(value + (high[n] - value) * (at % 1))).join(",")})`;
};

const scatter = async (box) => {
  const {header, rows} = await unpack(box.dataset.table);
  const place = (name) => header.indexOf(name);
  const canvas = box.querySelector("canvas");
  const [space, colour] = box.querySelectorAll("select");
  const [legend, said] = [box.querySelector("ul"), box.querySelector("[role=status]")];
  const sample = place("split");
  const margin = 12, scale = window.devicePixelRatio || 1;
  let points = [], at = -1, size = [0, 0];

  const colouring = () => {
    const column = place(colour.value);
    const values = rows.map((row) => row[column]);
    const known = values.filter((value) => value !== "");
    const kinds = new Map();
    for (const value of known) kinds.set(value, (kinds.get(value) ?? 0) + 1);
    if (kinds.size > COLOURS.length && known.every((value) => !isNaN(value))) {
      let low = Infinity, high = -Infinity;
      for (const value of known) [low, high] = [Math.min(low, value), Math.max(high, value)];
      const entries = [0, 0.25, 0.5, 0.75, 1].map((share) => [Number((low + share * (high - low)).toPrecision(3)), ramp(share)]);
      return {of: (value) => value === "" ? NONE : ramp((value - low) / (high - low || 1)), entries};
    }
    const names = [...kinds.keys()].sort((a, b) => kinds.get(b) - kinds.get(a) || inOrder(a, b));
    const entries = names.slice(0, names.length > COLOURS.length ? COLOURS.length - 1 : COLOURS.length)
      .map((name, n) => [name, COLOURS[n]]);
    const table = new Map(entries);
    if (names.length > entries.length) entries.push(["other", NONE]);
    return {of: (value) => table.get(value) ?? NONE, entries};
  };
  const dot = (context, {x, y, tint, hollow}, radius) => {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.strokeStyle = context.fillStyle = tint;
    context.lineWidth = 1.6;
    if (hollow) context.stroke(); else context.fill();
  };
  const paint = () => {
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, ...size);
    context.globalAlpha = rows.length > 1000 ? 0.7 : 0.9;
    for (const point of points) dot(context, point, rows.length > 1000 ? 2.5 : 4);
    if (at < 0) return;
    context.globalAlpha = 1;
    dot(context, points[at], 7);
    context.strokeStyle = getComputedStyle(canvas).color;
    context.beginPath();
    context.arc(points[at].x, points[at].y, 9, 0, 7);
    context.stroke();
  };
  const layOut = () => {
    size = [canvas.clientWidth, canvas.clientHeight];
    [canvas.width, canvas.height] = size.map((length) => Math.round(length * scale));
    const {of, entries} = colouring();
    const [x, y, by] = [`${space.value}_x`, `${space.value}_y`, colour.value].map(place);
    const ends = [x, y].map((column) => rows.reduce(
      ([low, high], row) => [Math.min(low, row[column]), Math.max(high, row[column])], [Infinity, -Infinity]));
    const put = (value, n) => margin + (value - ends[n][0]) / (ends[n][1] - ends[n][0] || 1) * (size[n] - 2 * margin);
    points = rows.map((row) => ({
      x: put(row[x], 0), y: size[1] - put(row[y], 1), tint: of(row[by]), hollow: sample >= 0 && row[sample] === "sample",
    }));
    legend.replaceChildren(...entries.map(([name, tint]) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = tint;
      item.append(swatch, String(name) || "none");
      return item;
    }));
    paint();
  };
  const tell = (n) => {
    at = n;
    said.textContent = n < 0 ? "" : header.map((name, column) => [name, rows[n][column]])
      .filter(([name, value]) => value && !/_[xy]$/.test(name)).map(([name, value]) => `${name} ${value}`).join(", ");
    paint();
  };
  canvas.addEventListener("pointermove", (event) => {
    const {left, top} = canvas.getBoundingClientRect();
    let found = -1, nearest = 144;
    points.forEach((point, n) => {
      const away = (point.x - event.clientX + left) ** 2 + (point.y - event.clientY + top) ** 2;
      if (away < nearest) [found, nearest] = [n, away];
    });
    if (found !== at) tell(found);
  });
  canvas.addEventListener("keydown", (event) => {
    const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!by) return;
    event.preventDefault();
    tell((at + by + points.length) % points.length);
  });
  for (const select of [space, colour]) select.addEventListener("change", layOut);
  box.querySelector("button.save").addEventListener("click", () => save(box.dataset.file, header, rows));
  box.hidden = false;
  layOut();
  new ResizeObserver(layOut).observe(canvas);
};

const fail = (box) => (error) => {
  box.hidden = false;
  box.textContent = `This browser cannot show the table (${error.message}). It is in the folder of the results.`;
};
for (const box of document.querySelectorAll(".explorer")) explore(box).catch(fail(box));
for (const box of document.querySelectorAll(".scatter")) scatter(box).catch(fail(box));

for (const film of document.querySelectorAll(".film")) {
  const [slider, said, frames] = [film.querySelector("input"), film.querySelector("output"), Number(film.dataset.frames)];
  const labels = [...film.querySelectorAll("ol li")].map((item) => item.textContent);
  const wind = () => {
    film.style.setProperty("--at", `${(100 * slider.value) / Math.max(1, frames - 1)}%`);
    said.textContent = labels[slider.value];
    slider.setAttribute("aria-valuetext", labels[slider.value]);
  };
  film.style.setProperty("--ratio", film.dataset.ratio);
  film.classList.add("ready");
  slider.addEventListener("input", wind);
  wind();
}

for (const select of document.querySelectorAll("select.films")) {
  const show = () => {
    for (const option of select.options) document.getElementById(option.value).classList.toggle("unchosen", !option.selected);
  };
  select.hidden = false;
  select.addEventListener("change", show);
  show();
}

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(document.getElementById(button.dataset.from));
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
  });
}
