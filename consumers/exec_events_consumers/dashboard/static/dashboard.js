// Draws the charts from the figures in the page, and replaces figures as the server sends new ones.
"use strict";

const drawn = new Map();
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function iso(seconds) {
  return new Date(seconds * 1000).toISOString();
}

function seriesOf(chart) {
  const colours = chart.points
    ? [colour("--good"), colour("--bad"), colour("--other"), colour("--link")]
    : chart.time
      ? [colour("--link"), colour("--bad")]
      : [colour("--faint"), colour("--link"), colour("--good")];
  const across = chart.time ? { label: chart.x, value: (plot, at) => (at == null ? "" : iso(at).slice(0, 16).replace("T", " ")) } : { label: chart.x, value: (plot, value) => value ?? "" };
  return [across].concat(chart.names.map((label, at) => {
    const series = { label, stroke: colours[at], width: 2 };
    if (chart.points) {
      const isRing = at === chart.names.length - 1;
      series.paths = () => null;
      series.points = { show: true, size: isRing ? 13 : 7, fill: isRing ? "transparent" : colours[at], stroke: colours[at], width: 1.5 };
    } else {
      series.points = { show: chart.data[0].length < 40, size: 6 };
    }
    return series;
  }));
}

function draw(figure, chart) {
  const place = figure.querySelector(".drawing");
  drawn.get(figure.id)?.destroy();
  if (!chart.data[0].length) {
    place.hidden = true;
    drawn.delete(figure.id);
    return;
  }
  place.hidden = false;
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const whole = (plot, values) => values.map((value) => (Number.isInteger(value) ? value : ""));
  const options = {
    width: place.clientWidth,
    height: 240,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { x: { time: chart.time }, y: { range: (plot, least, most) => [0, Math.max(1, most ?? 1) * 1.08] } },
    axes: [
      chart.time ? { ...axis, values: (plot, times, axisAt, space, step) => times.map((at) => (step < 86400 ? iso(at).slice(11, 16) : iso(at).slice(5, 10))) } : { ...axis, values: whole, label: chart.x, labelSize: 22 },
      { ...axis, values: whole, label: chart.y, labelSize: 22 },
    ],
    series: seriesOf(chart),
  };
  drawn.set(figure.id, new uPlot(options, chart.data, place));
}

function drawAll() {
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    draw(figure, JSON.parse(figure.dataset.chart));
  }
}

function show(message) {
  for (const [id, text] of Object.entries(message.facts)) {
    const place = document.getElementById(`fact-${id}`);
    place?.parentElement.classList.toggle("alarm", message.alarms.includes(id));
    // An unchanged figure is not said again by a screen reader.
    if (place && place.textContent !== text) {
      place.textContent = text;
      place.classList.remove("is-new");
      void place.offsetWidth;
      place.classList.add("is-new");
    }
  }
  for (const [id, rows] of Object.entries(message.tables)) {
    const body = document.querySelector(`#${id} > tbody`);
    if (body && body.dataset.shown !== rows && !body.contains(document.activeElement)) {
      body.dataset.shown = rows;
      body.innerHTML = rows; // escaped by the server, as in the page
    }
  }
  for (const [id, chart] of Object.entries(message.charts)) {
    const figure = document.getElementById(`chart-${id}`);
    figure.dataset.chart = JSON.stringify(chart);
    const plot = drawn.get(figure.id);
    if (plot && chart.data[0].length) {
      plot.setData(chart.data);
    } else {
      draw(figure, chart);
    }
  }
}

function follow(address) {
  const state = document.getElementById("live-state");
  const say = (text, isLive) => {
    if (state.textContent !== text) state.textContent = text;
    state.classList.toggle("is-live", isLive);
  };
  const source = new EventSource(address);
  source.addEventListener("now", (event) => {
    say("live", true);
    show(JSON.parse(event.data));
  });
  source.addEventListener("error", () => say(source.readyState === EventSource.CLOSED ? "not live: load the page again" : "connection lost, trying again", false));
}

drawAll();
dark.addEventListener("change", drawAll);
window.addEventListener("resize", () => {
  for (const [id, plot] of drawn) {
    plot.setSize({ width: document.querySelector(`#${id} .drawing`).clientWidth, height: 240 });
  }
});
if (document.body.dataset.live) follow(document.body.dataset.live);
