// Shows which tokens a token attends to. Click a token, or move with the arrow keys.
// The page contains one JSON object and one compressed array of bytes: the weights of each layer and head, row by row.
// A byte b of a row with the maximum w is the weight b / 255 * w.
"use strict";

const EDGE = 7; // pixels of the bar and the gap at the left and upper edge of the matrix

const unpack = async (text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

class Explorer {
  constructor(root, data, bytes) {
    Object.assign(this, { root, data, bytes, view: 0, head: 0, query: null, reads: true });
    this.floats = new Float32Array(bytes.buffer.slice(0, 4 * data.rows));
    this.cells = data.sets.map((set) => new Array(set.tokens.length));
    this.build();
    const kind = Math.max(0, data.views.findIndex((view) => view.kind === "attention"));
    this.view = kind;
    this.query = [data.views[kind].queries, data.start];
    this.update();
  }

  // The weights with which token `row` of the query set reads all tokens of the key set; head 0 is the mean.
  weights(view, head, row) {
    const { heads, keys, first, offset, size } = view;
    const chosen = head ? [head - 1] : [...Array(heads).keys()];
    const total = new Float64Array(this.data.sets[keys].tokens.length);
    for (const number of chosen) {
      const maximum = this.floats[first + number * size + row];
      const start = this.data.rows * 4 + offset + (number * size + row) * total.length;
      for (let key = 0; key < total.length; key++) total[key] += (this.bytes[start + key] / 255) * maximum / chosen.length;
    }
    return total;
  }

  // The weights with which all tokens of the query set read token `column` of the key set.
  received(view, head, column) {
    return Float64Array.from({ length: view.size }, (_, row) => this.weights(view, head, row)[column]);
  }

  build() {
    const controls = make("div", { className: "controls" });
    this.kinds = make("select", { onchange: () => this.choose(this.kinds.value, this.current.layer) });
    for (const kind of new Set(this.data.views.map((view) => view.kind))) this.kinds.append(make("option", { value: kind }, this.data.names[kind]));
    this.layers = make("fieldset", {}, make("legend", {}, "Layer"));
    this.heads = make("fieldset", {}, make("legend", {}, "Head"));
    this.direction = make("fieldset", {}, make("legend", {}, "The token"));
    controls.append(make("label", {}, "Show ", this.kinds), this.layers, this.heads, this.direction);
    this.status = make("p", { className: "status", role: "status" });
    const tokens = make("div", { className: "tokens" });
    this.data.sets.forEach((set, number) => set.inputs.forEach((input) => tokens.append(this.panel(set, number, input))));
    this.matrix = make("canvas", { className: "matrix", onclick: (event) => this.pick(event) });
    this.matrix.setAttribute("role", "img");
    this.scale = make("p", { className: "soft scale" }, "0 ", make("span", { className: "ramp" }), " ", make("span"));
    const help = make("p", { className: "soft" }), views = this.data.views;
    const hasLayers = new Set(views.map((view) => view.layer)).size > 1, hasHeads = views.some((view) => view.heads > 1);
    help.innerHTML = "Select a token, then: <kbd>←</kbd> <kbd>→</kbd> other token, " + (hasLayers ? "<kbd>↑</kbd> <kbd>↓</kbd> other layer, " : "") +
      (hasHeads ? "<kbd>h</kbd> other head, " : "") + "<kbd>d</kbd> other direction. " +
      "In the matrix, row i shows what token i reads, and column j which tokens read token j; colours at the edges are those of the inputs.";
    const side = make("div", { className: "side" }, this.matrix, this.scale);
    this.root.append(controls, this.status, make("div", { className: "row" }, tokens, side), help);
    this.root.addEventListener("keydown", (event) => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.update());
  }

  panel(set, number, input) {
    const panel = make("div", { className: "input" }, make("h3", {}, make("span", { className: "dot" }), `${input.name}: ${input.slots.length} token${input.slots.length === 1 ? "" : "s"}`));
    panel.style.setProperty("--tint", `var(--c${input.colour})`);
    const cells = make("div", { className: input.picture ? "cells" : "cells text" });
    input.slots.forEach((slot, index) => {
      const token = set.tokens[slot];
      const cell = make("button", { className: "token", type: "button", tabIndex: -1, title: token.name, onclick: () => this.select(number, slot) },
        make("span", {}, input.picture ? "" : token.text));
      cell.setAttribute("aria-label", token.name);
      if (input.picture) [cell.style.gridRow, cell.style.gridColumn] = input.places[index];
      this.cells[number][slot] = cell;
      cells.append(cell);
    });
    if (!input.picture) return panel.append(cells), panel;
    cells.style.gridTemplate = `repeat(${input.rows}, 1fr) / repeat(${input.columns}, 1fr)`;
    const picture = make("div", { className: "picture" }, make("img", { src: input.picture, className: input.style, alt: "" }), cells);
    [picture.style.width, picture.style.aspectRatio] = [`${input.width}px`, `${input.width} / ${input.height}`];
    panel.append(picture);
    return panel;
  }

  get current() { return this.data.views[this.view]; }

  // Chooses the view of a kind with this layer, or with the nearest one.
  choose(kind, layer) {
    const set = this.query[0];
    const views = this.data.views.map((view, index) => ({ ...view, index })).filter((view) => view.kind === kind);
    views.sort((a, b) => (a.queries !== set) - (b.queries !== set) || Math.abs(a.layer - layer) - Math.abs(b.layer - layer));
    this.view = views[0].index;
    this.head = Math.min(this.head, this.current.heads === 1 ? 0 : this.current.heads);
    this.settle();
  }

  // Makes the selected token one of the set whose tokens are selected in this view and direction.
  settle() {
    const set = this.reads ? this.current.queries : this.current.keys;
    if (this.query[0] !== set) this.query = [set, 0];
    this.update();
  }

  select(set, slot) {
    const here = this.reads ? this.current.queries : this.current.keys;
    if (set !== here) {
      const other = this.data.views.findIndex((view) => view.kind === this.current.kind && view.layer === this.current.layer && (this.reads ? view.queries : view.keys) === set);
      if (other < 0) return void (this.status.textContent = `In this view, only tokens of the ${this.data.sets[here].name} can be selected.`);
      this.view = other;
    }
    this.query = [set, slot];
    this.update();
  }

  move(steps) {
    const [set, slot] = this.query, order = this.data.sets[set].tokens.map((_, index) => index).filter((index) => this.cells[set][index]);
    const next = order[(order.indexOf(slot) + steps + order.length) % order.length];
    this.query = [set, next];
    this.update();
    this.cells[set][next].focus();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const layers = this.data.views.filter((view) => view.kind === this.current.kind && view.queries === this.current.queries).map((view) => view.layer);
    const next = (steps) => layers[Math.min(Math.max(layers.indexOf(this.current.layer) + steps, 0), layers.length - 1)];
    const actions = {
      ArrowLeft: () => this.move(-1), ArrowRight: () => this.move(1),
      ArrowUp: () => this.choose(this.current.kind, next(1)), ArrowDown: () => this.choose(this.current.kind, next(-1)),
      h: () => { if (this.current.heads > 1) this.head = (this.head + 1) % (this.current.heads + 1); this.update(); },
      d: () => { this.reads = !this.reads; this.settle(); },
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  pick(event) {
    const box = this.matrix.getBoundingClientRect(), view = this.current;
    const row = Math.floor((((event.clientY - box.top) / box.height) * this.matrix.height - EDGE) / this.unit);
    const column = Math.floor((((event.clientX - box.left) / box.width) * this.matrix.width - EDGE) / this.unit);
    const [set, slot] = this.reads ? [view.queries, row] : [view.keys, column];
    if (slot < 0 || !this.cells[set][slot]) return;
    this.select(set, slot);
    this.cells[set][slot].focus({ preventScroll: true });
  }

  update() {
    const view = this.current, [set, slot] = this.query, names = this.data.names;
    const weights = this.reads ? this.weights(view, this.head, slot) : this.received(view, this.head, slot);
    const other = this.reads ? view.keys : view.queries, highest = Math.max(...weights, 1e-9);
    this.kinds.value = view.kind;
    this.buttons(this.layers, [...new Set(this.data.views.filter((each) => each.kind === view.kind && each.queries === view.queries).map((each) => each.layer))],
      view.layer, (layer) => this.choose(view.kind, layer), (layer) => layer || "all");
    this.buttons(this.heads, view.heads > 1 ? [...Array(view.heads + 1).keys()] : [], this.head, (head) => { this.head = head; this.update(); }, (head) => head || "mean");
    this.buttons(this.direction, [true, false], this.reads, (reads) => { this.reads = reads; this.settle(); }, (reads) => (reads ? "reads" : "is read by"));
    this.cells.forEach((cells, number) => cells.forEach((cell, index) => {
      const weight = number === other ? weights[index] : 0, chosen = number === set && index === slot;
      cell.style.setProperty("--weight", weight / highest);
      cell.dataset.weight = number === other ? weight : "";
      cell.setAttribute("aria-pressed", chosen);
      cell.tabIndex = chosen ? 0 : -1;
      const token = this.data.sets[number].tokens[index].name;
      cell.title = number === other ? `${token}: ${weight.toFixed(3)}` : token;
    }));
    const shares = names.share[view.kind];
    const verb = shares ? (this.reads ? "reads most from" : "is read most by")
      : view.kind === "reachable" ? (this.reads ? "can contain information of" : "can have reached") : (this.reads ? "reads" : "is read by");
    const list = shares ? this.highest(weights, other) : this.counts(weights, other);
    this.status.textContent = `${this.data.sets[set].tokens[slot].name} ${verb} ${list || "no token"}`;
    this.scale.lastChild.textContent = `${highest.toFixed(3)}, the largest weight of the selected token. In the matrix, each row has its own scale.`;
    this.scale.hidden = !shares;
    this.draw(view, slot);
  }

  // The four tokens of a set with the largest weights: "sound 6 (0.41); image 3 (0.20)".
  highest(weights, set) {
    const top = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 4).filter((key) => weights[key] > 0);
    return top.map((key) => `${this.data.sets[set].tokens[key].name} (${weights[key].toFixed(3)})`).join("; ");
  }

  // The number of tokens of each input with a weight: "25 tokens: 16 of image, 1 of operator, 8 of sound".
  counts(weights, set) {
    const count = (slots) => slots.filter((slot) => weights[slot] > 0).length;
    const groups = this.data.sets[set].inputs.map((input) => [count(input.slots), input.name]).filter(([number]) => number);
    const total = groups.reduce((sum, [number]) => sum + number, 0);
    return total && `${total} token${total === 1 ? "" : "s"}: ${groups.map(([number, name]) => `${number} of ${name}`).join(", ")}`;
  }

  buttons(group, values, chosen, action, name) {
    group.hidden = values.length < 2;
    group.replaceChildren(group.firstChild, ...values.map((value) => {
      const button = make("button", { type: "button", onclick: () => action(value) }, String(name(value)));
      button.setAttribute("aria-pressed", value === chosen);
      return button;
    }));
  }

  draw(view, slot) {
    const columns = this.data.sets[view.keys].tokens.length, style = getComputedStyle(document.documentElement);
    const colour = (name) => {
      const value = style.getPropertyValue(name).trim();
      return [1, 3, 5].map((at) => parseInt(value.length === 4 ? value[(at + 1) / 2].repeat(2) : value.slice(at, at + 2), 16));
    };
    const paper = colour("--page"), ink = style.getPropertyValue("--read").split(",").map(Number), accent = colour("--accent");
    const tints = this.data.colours.map((_, number) => colour(`--c${number}`));
    this.unit = Math.max(1, Math.floor(360 / Math.max(columns, view.size)));
    [this.matrix.width, this.matrix.height] = [columns * this.unit + EDGE, view.size * this.unit + EDGE];
    this.matrix.style.aspectRatio = `${this.matrix.width} / ${this.matrix.height}`;
    const canvas = this.matrix.getContext("2d"), bar = EDGE - 2;
    const put = (x, y, width, height, rgb) => { canvas.fillStyle = `rgb(${rgb.map(Math.round)})`; canvas.fillRect(x, y, width, height); };
    put(0, 0, this.matrix.width, this.matrix.height, paper);
    for (let column = 0; column < columns; column++) put(EDGE + column * this.unit, 0, this.unit, bar, tints[this.data.sets[view.keys].tokens[column].colour]);
    for (let row = 0; row < view.size; row++) {
      put(0, EDGE + row * this.unit, bar, this.unit, tints[this.data.sets[view.queries].tokens[row].colour]);
      const weights = this.weights(view, this.head, row), highest = Math.max(...weights, 1e-9);
      weights.forEach((weight, column) => {
        const part = Math.sqrt(weight / highest), base = (this.reads ? row : column) === slot ? accent : ink;
        if (part > 0) put(EDGE + column * this.unit, EDGE + row * this.unit, this.unit, this.unit, base.map((value, channel) => paper[channel] + (value - paper[channel]) * part));
      });
    }
    this.matrix.setAttribute("aria-label", `matrix of ${view.size} x ${columns} weights`);
  }
}

const data = JSON.parse(document.getElementById("explorer-data").textContent);
unpack(document.getElementById("explorer-bytes").textContent).then((bytes) => {
  window.explorer = new Explorer(document.getElementById("explorer"), data, bytes);
});
