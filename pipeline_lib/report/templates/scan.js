"use strict";
// What the page of a scan does: pairs of pictures, the rating, and the viewer.

for (const pair of document.querySelectorAll(".pairwise")) {
  const slider = pair.querySelector("input");
  const show = () => pair.style.setProperty("--shown", `${slider.value}%`);
  slider.addEventListener("input", show);
  pair.style.setProperty("--tiles", pair.dataset.tiles);
  pair.classList.add("ready");
  show();
}

// What only the index knows of the whole cohort lies in cohort.js beside it; without it the page is of its chunk alone.
const inCohort = ({quantiles, chunks}) => {
  for (const table of document.querySelectorAll("table.measured")) {
    const known = quantiles[table.dataset.modality] ?? {};
    for (const row of table.querySelectorAll("tr[data-measure]")) {
      const [spread, value] = [known[row.dataset.measure], Number(Number(row.dataset.exact).toPrecision(6))]; // as exact as quantiles are
      if (!spread || !Number.isFinite(value)) continue;
      const last = spread.at.length - 1;
      const below = spread.at.filter((quantile) => quantile < value).length;
      const upTo = spread.at.filter((quantile) => quantile <= value).length;
      const percent = Math.round(100 * Math.min(1, Math.max(0, (below + upTo - 1) / 2 / last)));
      const [cell, mark] = [row.querySelector(".cohort"), document.createElement("span")];
      mark.className = "rank";
      mark.style.setProperty("--at", `${percent}%`);
      const where = upTo === 0 ? "below all" : below > last ? "above all" : `percentile ${percent}`;
      const spreadOf = document.createElement("small");
      const [low, median, high] = [0, last / 2, last].map((n) => Number(spread.at[n].toPrecision(3)));
      spreadOf.textContent = low === high ? `all are ${low}` : `median ${median}, ${low} to ${high}`;
      cell.append(mark, ` ${where} of ${spread.scans} scans `, spreadOf);
    }
    for (const cell of table.querySelectorAll(".cohort")) cell.hidden = false;
  }
  for (const link of document.querySelectorAll("a.turn[hidden]")) {
    const [here, back] = [chunks.findIndex(([name]) => name === link.dataset.chunk), link.rel === "prev"];
    const there = here < 0 ? undefined : chunks[here + (back ? -1 : 1)];
    if (!there) continue;
    link.href = `../${[there[0], there[back ? 2 : 1]].map(encodeURIComponent).join("/")}`;
    link.hidden = false;
  }
};
if (globalThis.cohortOfReport) inCohort(cohortOfReport);

const rate = (box) => {
  const ratings = ratingsOf(box.dataset.cohort);
  const [note, said] = [box.querySelector("input[type=text]"), box.querySelector("[role=status]")];
  const choices = [...box.querySelectorAll("input[type=radio]")];
  const tell = () => {
    const all = ratings.read();
    const own = all.get(box.dataset.scan);
    for (const choice of choices) choice.checked = choice.value === own?.rating;
    note.value = own?.note ?? "";
    said.textContent = `${own ? "Rated." : "Not rated."} ${all.size} scan${all.size === 1 ? "" : "s"} rated in this browser.`;
  };
  const keep = () => {
    const chosen = choices.find((choice) => choice.checked)?.value;
    if (chosen) ratings.set(box.dataset.scan, chosen, note.value);
    if (chosen) tell();
    else said.textContent = "Choose a rating, too: the note is kept with it.";
  };
  for (const item of [...choices, note]) item.addEventListener("change", keep);
  box.querySelector("button.clear").addEventListener("click", () => {
    ratings.set(box.dataset.scan, "", "");
    tell();
  });
  box.querySelector("button.export").addEventListener("click", ratings.export);
  tell();
  box.hidden = false;
};
for (const box of document.querySelectorAll(".rating")) {
  try {
    rate(box);
  } catch {
    box.hidden = true; // this browser keeps nothing for pages from disk
  }
}

const COLOURS = {scan: "gray", map: "inferno", mask: ["red", "blue", "green"]};
const STEP = {ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1]};

const view = async (box) => {
  if (typeof niivue === "undefined") throw Error("niivue.umd.js is not in the folder of the report");
  const canvas = box.querySelector("canvas");
  if (!document.createElement("canvas").getContext("webgl2")) throw Error("this browser has no WebGL 2");
  box.hidden = false;
  const viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1], crosshairColor: [0.35, 0.75, 1, 0.8], crosshairWidth: 1, crosshairWidthUnit: "mm", dragAndDropEnabled: false, isColorbar: true,
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER, logLevel: "error", fontMinPx: 11, sagittalNoseLeft: true,
  });
  await viewer.attachToCanvas(canvas);
  const said = box.querySelector("[role=status]");
  viewer.onLocationChange = ({mm, values}) => {
    const place = [...mm].slice(0, 3).map((value) => value.toFixed(0)).join(", ");
    const maps = values.flatMap(({value}, n) => layers[n].dataset.kind === "map" && !layers[n].hidden ? [`${layers[n].dataset.title}: ${value.toPrecision(3)}`] : []);
    said.textContent = [`${place} mm`, ...maps].join("; ");
  };
  const layers = [...box.querySelectorAll("[data-layer]")];
  let masks = 0;
  for (const [n, layer] of layers.entries()) {
    const {kind, low, high, threshold, title} = layer.dataset;
    const bytes = Uint8Array.from(atob(document.getElementById(layer.dataset.layer).textContent), (letter) => letter.charCodeAt(0));
    const volume = await niivue.NVImage.new(bytes.buffer, `${title}.nii.gz`, kind === "mask" ? COLOURS.mask[masks++] : COLOURS[kind], 1);
    volume.cal_min = kind === "map" ? Number(threshold) : kind === "mask" ? 0.5 : Number(low);
    volume.cal_max = Number(high);
    volume.colorbarVisible = kind === "map" && !layer.hidden;
    viewer.addVolume(volume);
    const [opacity, least] = [".opacity", ".threshold"].map((name) => layer.querySelector(name));
    const fade = () => {
      viewer.setOpacity(n, opacity.value / 100);
      opacity.nextElementSibling.textContent = `${opacity.value}%`;
    };
    const cut = () => {
      volume.cal_min = Number(least.value);
      viewer.updateGLVolume();
      least.nextElementSibling.textContent = Number(least.value).toPrecision(3);
    };
    if (opacity) {
      opacity.addEventListener("input", fade);
      fade();
    }
    if (least) {
      least.addEventListener("input", cut);
      cut();
    }
  }
  const chosen = box.querySelector("select.map");
  const choose = () => {
    for (const [n, layer] of layers.entries()) {
      if (layer.dataset.kind !== "map") continue;
      layer.hidden = layer.dataset.layer !== chosen.value;
      viewer.volumes[n].colorbarVisible = !layer.hidden;
      const opacity = layer.querySelector(".opacity");
      opacity.value = layer.hidden ? 0 : 75;
      opacity.dispatchEvent(new Event("input"));
    }
    viewer.createOnLocationChange();
  };
  chosen?.addEventListener("change", choose);
  viewer.setSliceType(viewer.sliceTypeMultiplanar);
  const move = (to) => {
    viewer.scene.crosshairPos = to;
    viewer.createOnLocationChange();
    viewer.drawScene();
  };
  for (const button of document.querySelectorAll("button.place")) {
    button.disabled = false;
    button.addEventListener("click", () => {
      const map = layers.find((layer) => layer.dataset.title === button.dataset.map);
      if (map?.hidden) {
        chosen.value = map.dataset.layer;
        choose();
      }
      move(viewer.mm2frac(button.dataset.place.split(" ").map(Number)));
      box.scrollIntoView({block: "nearest"});
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const step = STEP[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    viewer.moveCrosshairInVox(...step);
  }, true);
  const first = document.querySelector("button.place");
  if (first) move(viewer.mm2frac(first.dataset.place.split(" ").map(Number)));
  else viewer.createOnLocationChange();
  box.dataset.ready = "true";
};
for (const box of document.querySelectorAll(".viewer")) {
  view(box).catch((error) => {
    box.hidden = true;
    const why = document.querySelector(".no-viewer");
    why.hidden = false;
    why.textContent = `The viewer cannot be shown: ${error.message}. The pictures below show the same scan.`;
  });
}
