"use strict";
// What several scripts need: tables that are saved, and the reader's ratings of scans, which this browser keeps.

const quoted = (cell) => String(cell).includes('"') ? `"${String(cell).replaceAll('"', '""')}"` : cell;

const save = (name, header, rows) => {
  const text = [header, ...rows].map((cells) => cells.map(quoted).join("\t")).join("\n") + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/tab-separated-values"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

// Ratings of one cohort: scan to {rating, note, rated}. A browser that keeps nothing throws.
const ratingsOf = (cohort) => {
  const key = `ratings of ${cohort}`;
  const read = () => new Map(Object.entries(JSON.parse(localStorage.getItem(key) ?? "{}")));
  const line = (text) => text.replace(/\s+/g, " ").trim();
  return {
    read,
    set: (scan, rating, note) => {
      const all = read();
      if (rating) all.set(scan, {rating, note: line(note), rated: new Date().toISOString()});
      else all.delete(scan);
      localStorage.setItem(key, JSON.stringify(Object.fromEntries(all)));
    },
    export: () => save("ratings.tsv", ["scan", "rating", "note", "rated"],
      [...read()].map(([scan, {rating, note, rated}]) => [scan, rating, note, rated])),
  };
};
