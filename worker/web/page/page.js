// The live page: it listens to /live and draws what it hears. Texts that come
// from outside only ever become text nodes.

const $ = (id) => document.getElementById(id);
const count = new Intl.NumberFormat('en');
const percent = (v, digits = 1) => (100 * v).toFixed(digits) + ' %';
const pretty = (name) => name.replaceAll('_', ' ');

// el makes an element; attributes that are null are left out.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value != null) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
function svg(tag, attributes = {}, text) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes)) if (value != null) node.setAttribute(key, value);
  if (text != null) node.textContent = text;
  return node;
}
function say(node, text) { if (node.textContent !== text) node.textContent = text; }

// keyed brings a list's elements in line with items, and keeps those that stay.
function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let at = parent.firstChild;
  for (const item of items) {
    const k = String(key(item));
    let node = old.get(k);
    if (!node) { node = make(item); node.dataset.key = k; } else old.delete(k);
    if (node !== at) parent.insertBefore(node, at); else at = at.nextSibling;
    update?.(node, item);
  }
  for (const node of old.values()) node.remove();
}

let hello = null; // what stays: the model and its inputs
let ofNumber = false; // the label is a number: there are errors in the place of shares, and no classes
let state = null; // what changes
let history = { points: [], from: 0, generation: -1, stale: true };

/* The connection */

let source = null, heard = 0, refused = 0;

function link(is, text) {
  const node = $('link');
  node.dataset.is = is;
  say(node, text);
}

function connect() {
  source?.close();
  source = new EventSource('live');
  heard = Date.now();
  const on = (name, handler) => source.addEventListener(name, (event) => {
    heard = Date.now();
    refused = 0;
    if (event.data) handler(JSON.parse(event.data));
  });
  on('hello', greet);
  on('points', take);
  on('state', (s) => { state = s; link('live', 'live'); draw(); });
  on('alive', () => {});
  source.addEventListener('error', () => {
    link('lost', 'no connection, trying again');
    // A refusal ends the source for good; a lost connection it mends itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => document.hidden || connect(), Math.min(10, ++refused) * 1000);
  });
}
setInterval(() => { if (!document.hidden && Date.now() - heard > 15000) connect(); }, 2000);
document.addEventListener('visibilitychange', () => {
  if (document.hidden) source?.close(); else connect();
});

function greet(h) {
  const shape = (x) => JSON.stringify([x.model, x.label, x.label_type, x.inputs]);
  const changed = !hello || shape(h) !== shape(hello);
  if (hello && h.page !== hello.page && !document.activeElement?.closest('#try')) { location.reload(); return; }
  hello = h;
  document.title = h.model + ' · Lockstep';
  say($('model'), h.model);
  say($('subtitle'), `tells ${pretty(h.label)} from ${h.inputs.length} attributes, and learns while it serves`);
  say($('foot'), `seen from the replica ${h.replica} · Lockstep ${h.version} · ${h.semantics}`);
  ofNumber = h.label_type === 'number';
  say($('h-quality'), ofNumber ? 'Mean error' : 'Accuracy');
  charts.accuracy.of(ofNumber ? 'Mean error (MAE)' : 'Accuracy', !ofNumber);
  charts.loss.of(ofNumber ? 'RMSE' : 'Log-loss', false);
  $('s-classes').hidden = ofNumber;
  if (changed) buildForm();
}

// take brings the history up to date: points from the first on are new.
function take(p) {
  const kept = p.first === 0 ? [] : history.points.slice(0, p.first);
  history = { points: kept.concat(p.points), from: p.from, generation: p.generation };
}

/* What is drawn of each state */

function draw() {
  notice();
  if (!state.self) return;
  glance();
  replicas();
  charts.accuracy.draw(history);
  charts.loss.draw(history);
  classes();
  tail();
  refreshChoices();
}

function notice() {
  let text = '';
  if (state.waiting) text = 'Waiting: ' + state.waiting + '.';
  else if (state.unready) text = 'This replica does not answer: ' + state.unready;
  else if (!state.fleet.reachable) text = 'The other replicas cannot be asked now: what is shown of them is what was heard last.';
  const node = $('notice');
  say(node, text);
  node.hidden = !text;
}

const colour = (label) => 'c' + Math.max(0, state.classes.labels.indexOf(label)) % 8;

const speed = { at: 0, learned: 0, rate: 0 }; // of learning
const sparks = { rate: [], latency: [], at: 0 };

function glance() {
  const s = state.self, t = state.traffic, now = performance.now();
  if (!speed.at || s.learned < speed.learned) Object.assign(speed, { at: now, learned: s.learned, rate: 0 });
  if (now - speed.at >= 1000) Object.assign(speed, { rate: (s.learned - speed.learned) / (now - speed.at) * 1000, at: now, learned: s.learned });
  say($('learned'), count.format(s.learned));
  const extra = [];
  if (speed.rate >= 0.5) extra.push(count.format(Math.round(speed.rate)) + ' a second');
  extra.push(s.rejected + ' rejected');
  if (s.duplicates) extra.push(`${count.format(s.duplicates)} repeated`);
  say($('learned-more'), extra.join(' · '));
  const seen = s.rolling.events > 0;
  if (ofNumber) {
    say($('accuracy-now'), seen ? digits(s.mae) : '–');
    say($('accuracy-more'), seen ? `last ${s.rolling.events}: ${digits(s.rolling.mae)} · RMSE ${digits(s.rmse)} · R² ${s.r2.toFixed(3)}` : 'how far predictions were, before they were learned');
  } else {
    say($('accuracy-now'), seen ? percent(s.accuracy) : '–');
    say($('accuracy-more'), seen ? `last ${s.rolling.events}: ${percent(s.rolling.accuracy)} · macro F1 ${s.macro_f1.toFixed(3)}` : 'predicted correctly before they were learned');
  }
  figure($('rate'), t.at ? (t.rate < 10 ? t.rate.toFixed(1) : count.format(Math.round(t.rate))) : '–', '');
  say($('rate-more'), `${t.errors >= 0.05 ? t.errors.toFixed(1) + ' refused · ' : ''}${count.format(s.predicted)} predictions of the fleet`);
  const [p50, unit] = time(t.p50);
  figure($('latency'), p50, unit);
  say($('latency-more'), t.p99 ? `median · 99 %: ${time(t.p99).join(' ')}` : 'nothing asked for a while');
  if (t.at !== sparks.at) {
    sparks.at = t.at;
    spark($('rate-spark'), sparks.rate, t.rate);
    spark($('latency-spark'), sparks.latency, t.p50);
  }
}

function figure(node, text, unit) {
  if (node.dataset.text === text + unit) return;
  node.dataset.text = text + unit;
  node.replaceChildren(text, ...(unit ? [el('small', {}, unit)] : []));
}

function time(seconds) {
  if (!seconds) return ['–', ''];
  if (seconds < 0.001) return [(seconds * 1e6).toFixed(0), 'µs'];
  if (seconds < 1) return [(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0), 'ms'];
  return [seconds.toFixed(1), 's'];
}

function spark(node, values, next) {
  values.push(next);
  if (values.length > 60) values.shift();
  const top = Math.max(...values) * 1.1;
  if (!top) { node.replaceChildren(); return; }
  node.setAttribute('viewBox', '0 0 60 20');
  node.setAttribute('preserveAspectRatio', 'none');
  const line = values.map((v, i) => `${61 - values.length + i} ${(19 - 18 * v / top).toFixed(1)}`).join('L');
  node.replaceChildren(svg('path', { class: 'under', d: `M${61 - values.length} 20L${line}L60 20Z` }), svg('path', { d: 'M' + line }));
}

/* Replicas */

function replicas() {
  const f = state.fleet;
  const live = f.replicas.filter((r) => r.state !== 'stopped');
  const agree = live.filter((r) => r.agreement === 'agrees').length;
  const differ = live.filter((r) => r.agreement === 'differs').length;
  const gone = f.replicas.length - live.length, at = ` at sequence ${count.format(f.at)}`;
  let line = live.length < 2 ? 'alone' + at : agree === live.length ? `all ${agree} identical, bit for bit,${at}` : differ ? `${differ} of ${live.length} ${differ > 1 ? 'differ' : 'differs'}${at}` : `${agree} of ${live.length} identical${at}, the others not compared yet`;
  if (gone) line += ` · ${gone} stopped`;
  if (f.more) line += ` · ${f.more} more are not shown`;
  say($('fleet-line'), line);
  keyed($('replicas'), live, (r) => r.name, (r) => el('li', { class: 'replica' },
    el('div', { class: 'name' }, el('b', { title: r.name }, r.name), el('span', { class: 'state' })),
    print(), el('p', { class: 'hash' }), el('p', { class: 'at' }, el('span'), el('span')), el('p', { class: 'why' })), card);
  const stopped = f.replicas.filter((r) => r.state === 'stopped');
  $('stopped').hidden = !stopped.length;
  keyed($('stopped'), stopped, (r) => r.name, (r) => el('li', {}, el('b', { title: r.name }, r.name), el('span')), (node, r) => {
    say(node.lastChild, `stopped at ${count.format(r.seq)}, last heard ${ago(r.heard)}${r.note ? ': ' + r.note : ''}`);
  });
}

function card(node, r) {
  const differs = r.agreement === 'differs' || r.agreement === 'another';
  const bad = differs || r.state === 'quarantined';
  node.dataset.tone = bad ? 'bad' : r.state !== 'ready' || r.behind > 1000 ? 'late' : 'good';
  node.dataset.state = r.state;
  node.dataset.agreement = r.agreement;
  const [, mark, hash, at, why] = node.children;
  say(node.querySelector('.state'), r.state);
  const chain = r.chain || state.fleet.chain;
  if (mark.dataset.of !== chain) { mark.dataset.of = chain; wave(mark, chain); }
  say(hash, chain.match(/.{1,4}/g)?.join(' ') ?? '');
  say(at.firstChild, 'at ' + count.format(r.seq));
  say(at.lastChild, differs ? 'different' : r.behind > 0 ? count.format(r.behind) + ' behind' : r.self ? 'this one' : r.agreement === 'agrees' ? 'identical' : 'not compared yet');
  say(why, r.note ?? '');
  why.hidden = !why.textContent;
  if (r.note?.length > 120) why.tabIndex = 0; else why.removeAttribute('tabindex');
}

function ago(unix) {
  const s = Math.max(0, Math.round(Date.now() / 1000 - unix));
  return s < 90 ? s + ' s ago' : Math.round(s / 60) + ' min ago';
}
setInterval(() => { if (state?.fleet?.replicas.some((r) => r.heard)) replicas(); }, 1000);

// print is a hash to look at: equal hashes have equal shapes.
function print() {
  return svg('svg', { class: 'print', viewBox: '0 0 79 20', 'aria-hidden': 'true' });
}
function wave(node, chain) {
  node.replaceChildren(...[...chain].map((digit, i) => {
    const h = 2 + parseInt(digit, 16) * 1.2;
    return svg('rect', { x: i * 5, y: (20 - h) / 2, width: 3.4, height: h, rx: 0.8 });
  }));
}

/* Charts */

class Chart {
  constructor(id, name, all, rolling, share) {
    Object.assign(this, { name, all, rolling, share, at: null, data: null });
    this.figure = $(id);
    this.reading = this.figure.querySelector('.reading');
    this.spoken = el('p', { class: 'unseen', 'aria-live': 'polite' });
    this.svg = svg('svg', { role: 'img' });
    this.plot = el('div', { class: 'plot', tabindex: 0, role: 'group', 'aria-label': name + ': the arrow keys read it point by point' });
    this.plot.append(this.svg);
    this.figure.append(this.plot, this.spoken);
    this.plot.addEventListener('pointermove', (e) => this.point(e));
    this.plot.addEventListener('pointerdown', (e) => this.point(e));
    this.plot.addEventListener('pointerleave', () => this.move(null));
    this.plot.addEventListener('blur', () => this.move(null));
    this.plot.addEventListener('keydown', (e) => this.key(e));
    new ResizeObserver(() => this.data && this.draw(this.data)).observe(this.plot);
  }

  format(v) { return this.share ? percent(v) : ofNumber ? digits(v) : v.toFixed(3); }

  // of says what the chart shows: a share, or a size.
  of(name, share) {
    Object.assign(this, { name, share });
    say(this.figure.querySelector('h2'), name + ' by events learned');
    this.plot.setAttribute('aria-label', name + ': the arrow keys read it point by point');
  }

  point(e) {
    if (!this.data?.points.length) return;
    const events = this.eventsAt(e.clientX - this.plot.getBoundingClientRect().left);
    const far = (p) => Math.abs(p[1] - events);
    let best = 0;
    this.data.points.forEach((p, i) => { if (far(p) < far(this.data.points[best])) best = i; });
    this.move(best);
  }

  key(e) {
    const last = (this.data?.points.length ?? 0) - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[e.key];
    let to;
    if (last < 0) return;
    if (step) to = Math.min(last, Math.max(0, (this.at ?? last) + step));
    else if (e.key === 'Home') to = 0;
    else if (e.key === 'End') to = last;
    else if (e.key === 'Escape') to = null;
    else return;
    e.preventDefault();
    this.move(to);
    const p = this.data.points[to ?? last];
    this.spoken.textContent = `After ${p[1]} events, at sequence ${p[0]}: last 100 ${this.format(p[this.rolling])}, all ${this.format(p[this.all])}`;
  }

  move(to) {
    if (this.at === to) return;
    this.at = to;
    if (this.data) this.draw(this.data);
  }

  // range is what the ordinate spans: the first, wild points do not count.
  range(points) {
    const enough = Math.min(100, points[points.length - 1][1] / 3);
    const settled = points.filter((p) => p[1] >= enough);
    const values = settled.flatMap((p) => [p[this.all], p[this.rolling]]);
    if (!this.share) {
      const top = Math.max(ofNumber ? Number.MIN_VALUE * 1e20 : 0.01, ...values);
      const step = nice(top / 4);
      return [0, Math.ceil(top / step) * step, step];
    }
    const span = 1 - Math.min(...values);
    const step = span > 0.6 ? 0.25 : span > 0.32 ? 0.2 : span > 0.16 ? 0.1 : span > 0.07 ? 0.05 : 0.02;
    return [Math.max(0, 1 - step * Math.ceil(Math.max(span, 0.04) / step + 0.001)), 1, step];
  }

  draw(data) {
    this.data = data;
    const { points, from } = data;
    const width = this.plot.clientWidth, height = this.svg.clientHeight || 200;
    if (!width) return;
    if (this.at != null && this.at >= points.length) this.at = null;
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.readOut();
    if (!points.length) {
      this.svg.replaceChildren(svg('text', { x: 0, y: 24 }, 'Nothing has been learned yet.'));
      this.svg.setAttribute('aria-label', this.name + ': nothing has been learned yet');
      return;
    }
    const left = 40, right = width - 6, top = 8, bottom = height - 22;
    const newest = points[points.length - 1][1];
    const known = from > 0 ? points[0][1] : 0; // how many events a snapshot began with
    const oldest = known > 0 ? Math.max(1, known - Math.max(4, (newest - known) * 0.22)) : points[0][1];
    const [low, high, step] = this.range(points);
    const span = Math.max(1, newest - oldest);
    const x = (events) => left + (events - oldest) / span * (right - left);
    const y = (v) => bottom - (v - low) / (high - low) * (bottom - top);
    this.eventsAt = (px) => oldest + (px - left) / (right - left) * span;
    const parts = [];
    for (let v = low; v <= high + step / 2; v += step) {
      parts.push(svg('line', { class: 'grid', x1: left, x2: right, y1: y(v), y2: y(v) }));
      parts.push(svg('text', { x: left - 8, y: y(v) + 4, 'text-anchor': 'end' }, this.share ? Math.round(v * 100) + ' %' : ofNumber ? digits(v) : v.toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)));
    }
    const ticks = nice(span / Math.max(2, Math.floor(width / 85)));
    for (let s = Math.ceil(oldest / ticks) * ticks; s <= newest; s += ticks) {
      if (s < known || !Number.isInteger(s)) continue;
      const px = x(s);
      parts.push(svg('text', { x: px, y: height - 4, 'text-anchor': px > right - 24 ? 'end' : px < left + 12 ? 'start' : 'middle' }, count.format(s)));
    }
    if (known > 0) parts.push(...this.unknown(left, x(known), top, bottom, known));
    const path = (of) => 'M' + points.map((p) => `${x(p[1]).toFixed(1)} ${y(p[of]).toFixed(1)}`).join('L');
    const id = 'clip-' + this.figure.id;
    const clip = svg('clipPath', { id });
    clip.append(svg('rect', { x: left, y: top - 2, width: right - left + 8, height: bottom - top + 4 }));
    const lines = svg('g', { 'clip-path': `url(#${id})` });
    lines.append(svg('path', { class: 'all', d: path(this.all) }), svg('path', { class: 'roll', d: path(this.rolling) }));
    parts.push(clip, lines);
    const p = points[this.at ?? points.length - 1], px = x(p[1]);
    const within = (v) => y(Math.min(high, Math.max(low, v)));
    if (this.at != null) parts.push(svg('line', { class: 'cursor', x1: px, x2: px, y1: top, y2: bottom }), svg('circle', { class: 'dot of-all', cx: px, cy: within(p[this.all]), r: 4 }));
    parts.push(svg('circle', { class: 'dot', cx: px, cy: within(p[this.rolling]), r: 4.5 }));
    this.svg.replaceChildren(...parts);
    this.svg.dataset.points = points.length;
    this.svg.dataset.newest = newest;
    const last = points[points.length - 1];
    this.svg.setAttribute('aria-label', `${this.name} by events, from ${Math.max(known, Math.round(oldest))} to ${newest}: now ${this.format(last[this.all])} of all, ${this.format(last[this.rolling])} of the last 100` + (known > 0 ? `; before ${known} it is not known here` : ''));
  }

  // unknown is the part before the snapshot that the replica began with.
  unknown(left, right, top, bottom, known) {
    const id = 'hatch-' + this.figure.id;
    const pattern = svg('pattern', { id, width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' });
    pattern.append(svg('line', { class: 'hatch', x1: 0, x2: 0, y1: 0, y2: 7 }));
    const title = svg('title', {}, `This replica began with a snapshot of ${count.format(known)} events: how it went up to there is not known here.`);
    const area = svg('rect', { class: 'before', x: left, y: top, width: Math.max(0, right - left), height: bottom - top, fill: `url(#${id})` });
    area.append(title);
    return [pattern, area, svg('text', { x: left, y: bottom + 18, 'text-anchor': 'start' }, right - left > 110 ? 'from a snapshot' : 'snapshot')];
  }

  readOut() {
    const p = this.data.points[this.at ?? this.data.points.length - 1];
    if (!p) { this.reading.replaceChildren(); return; }
    const parts = [el('span', { class: 'key' }, 'last 100 ', el('b', {}, this.format(p[this.rolling]))), el('span', { class: 'key all' }, 'all ', el('b', {}, this.format(p[this.all])))];
    if (this.at != null) parts.unshift(el('span', {}, 'after ', el('b', {}, count.format(p[1])), ' events'));
    this.reading.replaceChildren(...parts);
  }
}

// digits is a number with the few digits that tell it.
const digits = (v) => String(Number(v.toPrecision(4)));

// nice is 1, 2 or 5 times a power of ten, not below a value.
function nice(v) {
  const power = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= v * 0.999);
}

const charts = { accuracy: new Chart('accuracy', 'Accuracy', 2, 4, true), loss: new Chart('loss', 'Log-loss', 3, 5, false) };

/* Labels */

let names = new Map(), namesOf = '';

// short is a label in few letters, told from all others; see shorten.
function short(label) {
  const key = JSON.stringify(state.classes.labels);
  if (key !== namesOf) {
    namesOf = key;
    names = shorten(state.classes.labels, 20);
  }
  return names.get(label) ?? label;
}

// shorten gives each label at most so many letters: of a longer one its
// beginning, unless all begin so, and what tells it from the one that is most
// like it, from the beginning of a word on if there is one near.
function shorten(labels, most) {
  const out = new Map(), used = new Set();
  const common = labels.length > 1 ? Math.min(...labels.map((label) => shared(labels[0], label))) : 0;
  for (const label of labels) {
    const letters = [...label];
    let text = label;
    if (letters.length > most) {
      const alike = Math.max(0, ...labels.filter((other) => other !== label).map((other) => shared(label, other)));
      const head = Math.floor(most / 3), begins = common > head ? 0 : head, rest = most - begins - 2;
      let from = Math.max(begins, Math.min(alike - 1, letters.length - rest));
      for (let back = 0; back < rest / 2 && from - back > begins; back++) if (letters[from - back - 1] === ' ') { from -= back; break; }
      text = letters.slice(0, begins).join('') + (from > begins ? '…' : '') + letters.slice(from, from + rest).join('').replace(/^\s+|[\s,;:.]+$/g, '') + (from + rest < letters.length ? '…' : '');
    }
    for (let n = 2, plain = text; used.has(text); n++) text = `${plain} (${n})`;
    used.add(text);
    out.set(label, text);
  }
  return out;
}

// shared is how many letters two texts begin with that are the same.
function shared(a, b) {
  const left = [...a], right = [...b];
  let n = 0;
  while (n < left.length && left[n] === right[n]) n++;
  return n;
}

/* Classes */

let drawnClasses = '';

function classes() {
  const c = state.classes, key = JSON.stringify(c);
  if (key === drawnClasses) return;
  drawnClasses = key;
  const label = hello ? pretty(hello.label) : 'class';
  if (!c.shown.length) {
    say($('classes-line'), '');
    $('classes').replaceChildren(el('p', { class: 'empty' }, 'Nothing has been learned yet.'));
    return;
  }
  say($('classes-line'), c.total > c.shown.length ? `the ${c.shown.length} most frequent of ${count.format(c.total)}` : 'a row per ' + label + ', a column per prediction');
  const none = c.confusion.some((row) => row[0] > 0), others = c.confusion.some((row) => row[row.length - 1] > 0);
  const columns = c.shown.map((class_, i) => ({ at: i + 1, class_ }));
  if (others) columns.push({ at: c.shown.length + 1, name: 'others' });
  if (none) columns.push({ at: 0, name: 'none' });
  const most = Math.max(...c.given);
  // Where names do not fit above the columns, numbers stand for them.
  const numbered = c.shown.map((class_) => [...short(c.labels[class_])].length).reduce((sum, n) => sum + Math.max(n, 5), 0) > 48;
  const heading = (col) => col.name ? el('th', { scope: 'col', title: col.name }, numbered ? col.name.slice(0, 5) : col.name)
    : el('th', { scope: 'col', title: c.labels[col.class_], 'aria-label': c.labels[col.class_] }, numbered ? String(col.at) : short(c.labels[col.class_]));
  const head = el('tr', {}, el('th', { scope: 'col' }, el('span', { class: 'unseen' }, label)),
    ...columns.map(heading), el('th', { scope: 'col' }, 'events'));
  const body = c.shown.map((class_, i) => {
    const row = el('tr', { class: 'c' + class_ % 8 }, el('th', { scope: 'row', class: 'swatch', title: c.labels[class_], 'aria-label': c.labels[class_] }, ...(numbered ? [el('i', {}, String(i + 1)), ' '] : []), short(c.labels[class_])));
    for (const col of columns) {
      const n = c.confusion[i][col.at], v = c.given[i] ? n / c.given[i] : 0, right = col.class_ === class_;
      // A single mistake among thousands is still to be seen.
      const heat = right ? v : n ? Math.min(1, 0.14 + Math.sqrt(v) * 0.86) : 0;
      const cell = el('td', { class: (right ? 'right' : 'miss') + (n ? '' : ' none') + (heat > 0.88 ? ' deep' : heat > 0.6 ? ' mid' : ''), title: `${c.labels[class_]} predicted as ${col.name ?? c.labels[col.class_]}: ${percent(v)}` }, n ? count.format(n) : '·');
      cell.style.setProperty('--v', heat);
      row.append(cell);
    }
    const bar = el('span', { class: 'fill' });
    bar.style.setProperty('--v', c.given[i] / most);
    row.append(el('td', { class: 'given' }, bar, count.format(c.given[i])));
    return row;
  });
  $('classes').replaceChildren(el('table', { class: 'confusion' + (numbered ? ' numbered' : '') }, el('thead', {}, head), el('tbody', {}, ...body)));
}

/* The log's tail */

let tailed = false;

function tail() {
  const fresh = tailed;
  tailed = true;
  keyed($('tail'), state.tail, (t) => t.seq + ':' + (t.index ?? ''), (t) => {
    const rejected = t.verdict === 'rejected', wrong = !ofNumber && t.verdict === 'learned' && t.predicted !== t.label;
    const name = count.format(t.seq) + (t.index == null ? '' : '.' + t.index);
    const button = el('button', { type: 'button', 'aria-label': `Bring event ${name} into the form` }, name);
    button.addEventListener('click', () => load(t));
    const row = el('tr', { class: `${rejected ? 'rejected' : wrong ? 'was-wrong' : ''}${fresh ? ' fresh' : ''}` }, el('td', { class: 'number' }, button), clock(t.stored));
    if (rejected) {
      row.append(el('td', { colspan: 2, class: 'reason' }, t.problem ?? ''), outcome('▲', 'rejected'));
      return row;
    }
    const swatch = (label) => ofNumber ? el('span', { title: label }, digits(Number(label))) : el('span', { class: 'swatch ' + colour(label), title: label }, short(label));
    const predicted = el('td', {}, t.predicted == null ? el('span', { class: 'quiet' }, 'nothing') : swatch(t.predicted));
    if (t.proba) predicted.append(' ', el('span', { class: 'proba' }, percent(t.proba, 0)));
    const verdict = t.verdict === 'duplicate' ? (t.problem ? ['▲', 'conflict'] : ['↻', 'repeated']) : ofNumber ? ['', t.predicted == null ? 'learned' : 'off by ' + digits(Math.abs(t.predicted - t.label))] : wrong ? ['✕', 'wrong'] : ['✓', 'correct'];
    row.append(predicted, el('td', {}, swatch(t.label)), outcome(...verdict, t.problem));
    return row;
  });
}

function outcome(mark, word, title) {
  return el('td', { class: 'verdict-of', title }, mark + ' ', el('span', {}, word));
}

// clock is when an event was stored: of another day with its date.
function clock(stored) {
  const at = new Date(stored), two = (n) => String(n).padStart(2, '0');
  const day = at.toDateString() === new Date().toDateString() ? '' : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return el('td', { class: 'clock' }, el('time', { datetime: at.toISOString(), title: at.toISOString() }, day + time));
}

/* The form */

const fields = new Map(); // by input: { input, select, other, wrong }
let right = null; // the field of the right answer

// buildForm makes a field for each input that the spec declares.
function buildForm() {
  fields.clear();
  $('fields').replaceChildren(...hello.inputs.map((input) => {
    const f = field(input, input.number ? bounds(input) : '');
    fields.set(input.name, f);
    return f.node;
  }));
  right = field({ name: hello.label, type: hello.label_type, number: ofNumber }, '', $('answer-field'));
  right.label.firstChild.textContent = 'The right answer';
  $('answer').replaceChildren(el('p', { class: 'empty' }, 'Fill in the form, or take an event from the log’s tail, and press Predict.'));
  say($('answer-seq'), '');
}

function bounds(input) {
  const { min, max } = input;
  return min != null && max != null ? `${min} to ${max}` : min != null ? `from ${min}` : max != null ? `up to ${max}` : '';
}

function field(input, hint, node = el('div', { class: 'field' })) {
  const id = (node.id ? 'a-' : 'f-') + input.name;
  const wrong = el('p', { class: 'wrong', id: id + '-wrong', role: 'alert' });
  const label = el('label', { for: id }, pretty(input.name), el('span', {}, hint));
  const f = { input, node, wrong, label, known: '' };
  f.other = el('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', 'aria-describedby': wrong.id, ...(input.type !== 'category' && input.type !== 'boolean' ? { id, ...(input.number ? { inputmode: 'decimal' } : {}) } : { 'aria-label': pretty(input.name) + ', another' }) });
  if (input.number && input.nullable) f.other.placeholder = 'null';
  if (input.type === 'category' || input.type === 'boolean') {
    f.select = el('select', { id, 'aria-describedby': wrong.id });
    f.select.addEventListener('change', () => {
      f.chosen = true;
      f.other.hidden = f.select.value !== 'other';
      if (!f.other.hidden) f.other.focus();
    });
    f.other.addEventListener('input', () => { f.chosen = true; });
    choices(f, input.type === 'boolean' ? ['true', 'false'] : []);
  }
  node.replaceChildren(label, ...(f.select ? [f.select] : []), f.other, wrong);
  return f;
}

// choices offers the values that were seen, null, and any other.
function choices(f, values) {
  const key = JSON.stringify(values);
  if (f.known === key) return;
  f.known = key;
  const before = f.select.value;
  const option = (value, text) => el('option', { value }, text);
  f.select.replaceChildren(...values.map((v) => option('=' + v, v)), ...(f.input.nullable ? [option('null', 'null')] : []), ...(f.input.type === 'boolean' ? [] : [option('other', values.length ? 'another …' : 'a new one')]));
  // What a person chose stays; what was typed and has been learned since is an option now.
  const typed = before === 'other' && document.activeElement !== f.other && values.includes(f.other.value);
  if (typed) f.select.value = '=' + f.other.value;
  else if (f.chosen || before !== 'other') f.select.value = before;
  if (f.select.selectedIndex < 0) f.select.selectedIndex = 0;
  f.other.hidden = f.select.value !== 'other';
}

// The form begins with the last event, unless somebody was there first.
let prefilled = false, touched = false;
for (const kind of ['input', 'change']) $('try').addEventListener(kind, () => { touched = true; });

function refreshChoices() {
  for (const [name, f] of fields) if (f.input.type === 'category') choices(f, state.values[name] ?? []);
  if (right?.input.type === 'category') choices(right, state.classes.labels);
  const last = state.tail.find((t) => t.verdict === 'learned');
  if (!prefilled && !touched && last && fields.size) {
    prefilled = true;
    load(last, true);
  }
}

function value(f) {
  if (f.select && f.select.value !== 'other') {
    const chosen = f.select.value === 'null' ? null : f.select.value.slice(1);
    return f.input.type === 'boolean' && chosen !== null ? chosen === 'true' : chosen;
  }
  const text = f.other.value.trim();
  if (f.input.type !== 'number' && f.input.type !== 'timestamp') return text === '' ? undefined : f.other.value;
  if (text === '') return f.input.nullable ? null : undefined;
  return /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text) && Number.isFinite(Number(text)) ? Number(text) : text;
}

function fill(f, v) {
  if (f.select) {
    const wanted = v === null ? 'null' : '=' + v;
    const there = [...f.select.options].some((o) => o.value === wanted);
    f.select.value = there ? wanted : 'other';
    f.other.hidden = there;
    if (there) return;
  }
  f.other.value = v === null || v === undefined ? '' : String(v);
}

function attributes() {
  return Object.fromEntries([...fields].map(([name, f]) => [name, value(f)]));
}

// load brings an event of the log into the form.
async function load(t, quietly) {
  try {
    const answer = await fetch(`live/row?seq=${t.seq}` + (t.index == null ? '' : '&index=' + t.index));
    const row = await answer.json();
    if (!answer.ok) throw new Error(row.detail);
    if (quietly && touched) return;
    clear();
    if (typeof row.attributes === 'object' && row.attributes) for (const [name, f] of fields) fill(f, row.attributes[name]);
    if (row.label != null) fill(right, row.label);
    if (quietly) return;
    say($('taught'), '');
    $('form').scrollIntoView({ block: 'nearest' });
    await predict();
  } catch (error) {
    if (!quietly) say($('form-wrong'), error.message);
  }
}

function clear() {
  say($('form-wrong'), '');
  for (const f of [...fields.values(), right]) mark(f, '');
}

function mark(f, text) {
  say(f.wrong, text);
  for (const input of [f.select, f.other]) text ? input?.setAttribute('aria-invalid', 'true') : input?.removeAttribute('aria-invalid');
}

// complain puts the server's messages next to the fields they are about.
function complain(answer) {
  const rest = [];
  let first = null;
  if (!Array.isArray(answer.detail)) rest.push(answer.detail ?? 'no reason was given');
  else for (const d of answer.detail) {
    const place = d.loc.filter((part) => part !== 'body' && part !== 'attributes');
    const f = place.length !== 1 ? null : fields.get(place[0]) ?? (place[0] === hello.label ? right : null);
    if (!f) { rest.push(`${place.join('.')}${place.length ? ': ' : ''}${d.msg}`); continue; }
    mark(f, d.msg);
    first ??= f;
  }
  say($('form-wrong'), rest.join('; '));
  if (first) (first.other.hidden ? first.select : first.other).focus();
}

async function post(path, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body) });
  } catch {
    throw { detail: 'The worker cannot be reached now; try again.' };
  }
  const data = await answer.json().catch(() => ({ detail: `the answer ${answer.status} cannot be read` }));
  if (!answer.ok) throw data;
  return { data, seq: answer.headers.get('Lockstep-Seq') };
}

// busy keeps a button from being pressed twice.
async function busy(button, work) {
  if (button.getAttribute('aria-disabled')) return;
  button.setAttribute('aria-disabled', 'true');
  try { await work(); } catch (error) { complain(error.detail === undefined ? { detail: String(error) } : error); } finally { button.removeAttribute('aria-disabled'); }
}

$('form').addEventListener('submit', (e) => {
  e.preventDefault();
  say($('taught'), '');
  predict();
});

function predict(minSeq) {
  return busy($('predict'), async () => {
    clear();
    // A sequence that was learned is waited for: one reads what one wrote.
    const { data } = await post('explain', attributes(), minSeq ? { 'Lockstep-Min-Seq': minSeq } : {});
    explain(data);
    const said = $('answer').firstElementChild.getBoundingClientRect();
    if (said.top < 0 || said.bottom > innerHeight) $('actions').scrollIntoView({ block: 'start' });
  });
}

let lesson = null; // what was sent and not answered: a retry has the same id

$('teach').addEventListener('click', () => busy($('teach'), async () => {
  clear();
  say($('taught'), '');
  const label = value(right);
  const event = { attributes: attributes(), [hello.label]: label };
  const text = JSON.stringify(event);
  if (lesson?.text !== text) lesson = { text, id: 'page-' + [...crypto.getRandomValues(new Uint8Array(12))].map((b) => b.toString(16).padStart(2, '0')).join('') };
  const { data, seq } = await post('learn', event, { 'Idempotency-Key': lesson.id }).catch((error) => {
    if (Array.isArray(error.detail)) lesson = null; // it was refused, not lost
    throw error;
  });
  lesson = null;
  say($('taught'), `At sequence ${count.format(seq)}: ${data.status}.`);
  await predict(seq);
}));

/* The answer, and why */

let explained = null, against = null;

function explain(data) {
  explained = data;
  const label = data[hello.label] == null ? null : String(data[hello.label]);
  if (ofNumber) { drawNumber(label); return; }
  const others = Object.keys(data.proba).filter((l) => l !== label).sort((a, b) => data.proba[b] - data.proba[a]);
  if (!others.includes(against)) against = null;
  drawAnswer(label, others);
}

function drawAnswer(label, others) {
  say($('answer-seq'), 'at sequence ' + count.format(explained.seq));
  if (label == null) {
    $('answer').replaceChildren(el('p', { class: 'empty' }, 'Nothing: it has learned nothing yet. Teach it something.'));
    return;
  }
  const rival = against ?? others[0];
  const shown = [label, ...others].slice(0, 12);
  const long = shown.some((l) => [...short(l)].length > 14);
  const bars = el('ul', { class: long ? 'bars long' : 'bars' }, ...shown.map((l) => {
    const fill = el('span', { class: 'fill' });
    fill.style.setProperty('--v', explained.proba[l]);
    const button = el('button', { type: 'button', class: colour(l), disabled: l === label ? '' : null, 'aria-pressed': l === label ? null : String(l === rival), 'aria-label': `${l}: ${percent(explained.proba[l])}` + (l === label ? '' : ', compare with it'), title: l === label ? null : 'compare with ' + l },
      el('span', { class: 'what' }, short(l)), el('span', { class: 'track' }, fill), el('span', { class: 'much' }, chance(explained.proba[l])));
    button.addEventListener('click', () => {
      against = l;
      drawAnswer(label, others);
      [...$('answer').querySelectorAll('.bars button')][shown.indexOf(l)].focus();
    });
    return el('li', {}, button);
  }));
  const parts = [el('p', { class: 'verdict ' + colour(label) }, label), bars];
  if (rival != null && explained.unit) parts.push(...why(label, rival));
  $('answer').replaceChildren(...parts);
}

// drawNumber shows a number, and what each feature added to it.
function drawNumber(label) {
  say($('answer-seq'), 'at sequence ' + count.format(explained.seq));
  const parts = [el('p', { class: 'verdict' }, digits(Number(label)))];
  if (explained.unit) {
    const rows = explained.features.map((f) => ({ name: pretty(f.feature), value: f.value, by: f[explained.unit][hello.label] }));
    rows.push({ name: 'before any', by: explained.prior[hello.label] ?? 0 });
    rows.sort((a, b) => Math.abs(b.by) - Math.abs(a.by));
    parts.push(el('p', { class: 'because' }, 'What each added'), added(rows, '', ''));
  }
  $('answer').replaceChildren(...parts);
}

function chance(p) {
  return p > 0.9995 && p < 1 ? '> 99.9 %' : p > 0 && p < 0.0005 ? '< 0.1 %' : percent(p);
}

// why compares two labels: what each feature adds to the one more than to the
// other. Together with how frequent they are that makes the odds.
function why(label, rival) {
  const rows = explained.features.map((f) => ({ name: pretty(f.feature), value: f.value, by: f[explained.unit][label] - f[explained.unit][rival] }));
  rows.push({ name: 'how frequent they are', by: (explained.prior[label] ?? 0) - (explained.prior[rival] ?? 0) });
  const total = rows.reduce((sum, r) => sum + r.by, 0);
  rows.sort((a, b) => Math.abs(b.by) - Math.abs(a.by));
  const rest = rows.splice(12);
  if (rest.length) rows.push({ name: `${rest.length} more`, by: rest.reduce((sum, r) => sum + r.by, 0) });
  const table = added(rows, colour(label), colour(rival));
  const odds = Math.exp(Math.min(700, Math.abs(total)));
  return [el('p', { class: 'because' }, 'Why ', el('b', {}, short(label)), ' rather than ', el('b', {}, short(rival)), `: the log of the odds, together ${signed(total)}, which is ${odds < 1e6 ? count.format(Number(odds.toPrecision(3))) : 'more than a million'} to 1`), table];
}

const signed = (v) => (v < 0 ? '−' : '+') + (Math.abs(v) < 1000 ? Math.abs(v).toFixed(Math.abs(v) < 10 ? 2 : 1) : digits(Math.abs(v)));

// added is a table of what features add, for one thing and against another.
function added(rows, good, bad) {
  const most = Math.max(...rows.map((r) => Math.abs(r.by)), 1e-9);
  return el('table', { class: 'why-table' }, el('tbody', {}, ...rows.map((r) => {
    const bar = el('span', { class: r.by < 0 ? 'against ' + bad : 'for ' + good });
    bar.style.setProperty('--v', Math.abs(r.by) / most);
    const number = r.value == null ? [] : [' ', el('span', {}, String(Number(r.value.toPrecision(5))))];
    return el('tr', {}, el('th', { scope: 'row', title: r.name }, r.name, ...number), el('td', {}, el('div', { class: 'both', 'aria-hidden': 'true' }, bar)), el('td', { class: 'much' }, signed(r.by)));
  })));
}

link('waiting', 'connecting');
connect();
