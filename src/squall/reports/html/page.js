"use strict";
// The read-out: a line across all plots of a figure and the numbers of the moment under it. Without this script the
// page shows the same charts; only the numbers under the pointer are missing.
(() => {
  const all = JSON.parse(document.getElementById("data").textContent);
  const svg = "http://www.w3.org/2000/svg";

  const latency = (ms) => {
    if (ms === null) return "–";
    if (ms >= 1000) return `${+(ms / 1000).toPrecision(3)} s`;
    return ms >= 1 ? `${+ms.toPrecision(3)} ms` : `${+(ms * 1000).toPrecision(3)} µs`;
  };
  const share = (part, whole) => (whole ? `${+((part / whole) * 100).toPrecision(3)} %` : "–");
  const moment = (s) => (Math.abs(s) < 600 ? `${+s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`);

  const follow = (plots) => {
    const data = all[Number(plots.dataset.chart)];
    const box = plots.querySelector(".readout");
    box.setAttribute("aria-live", "polite");
    const lines = [...plots.querySelectorAll("svg.plot:not(.time)")].map((plot) => {
      const line = document.createElementNS(svg, "line");
      line.setAttribute("class", "cross");
      line.setAttribute("y1", "0");
      line.setAttribute("y2", "100%");
      line.style.display = "none";
      plot.append(line);
      return line;
    });
    let chosen = -1;

    const hide = () => {
      box.hidden = true;
      for (const line of lines) line.style.display = "none";
    };

    const fill = (row) => {
      const [at, requests, errors, p50, p95, p99] = row;
      const pairs = [["p99", latency(p99)], ["p95", latency(p95)], ["p50", latency(p50)], ["errors", share(errors, requests)], ["requests", String(requests)]];
      const title = document.createElement("b");
      title.textContent = `at ${moment(Math.max(at, data.start) - data.zero)}`;
      const list = document.createElement("dl");
      for (const [name, value] of pairs) {
        const term = document.createElement("dt");
        const number = document.createElement("dd");
        term.textContent = name;
        number.textContent = value;
        list.append(term, number);
      }
      box.replaceChildren(title, list);
    };

    const show = (index) => {
      if (!data.rows.length) return;
      chosen = Math.max(0, Math.min(data.rows.length - 1, index));
      const row = data.rows[chosen];
      const part = (row[0] + data.width / 2 - data.start) / (data.end - data.start);
      const plot = lines[0].ownerSVGElement.getBoundingClientRect();
      const frame = plots.getBoundingClientRect();
      for (const line of lines) {
        line.setAttribute("x1", `${part * 100}%`);
        line.setAttribute("x2", `${part * 100}%`);
        line.style.display = "";
      }
      fill(row);
      box.hidden = false;
      const x = plot.left - frame.left + part * plot.width;
      const left = x + box.offsetWidth + 14 > frame.width ? x - box.offsetWidth - 12 : x + 12;
      box.style.left = `${Math.max(0, left)}px`;
    };

    const nearest = (seconds) => {
      let low = 0;
      let high = data.rows.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (data.rows[middle][0] <= seconds) low = middle;
        else high = middle - 1;
      }
      return low;
    };

    plots.addEventListener("pointermove", (event) => {
      const plot = lines[0].ownerSVGElement.getBoundingClientRect();
      const part = (event.clientX - plot.left) / plot.width;
      if (part < 0 || part > 1) hide();
      else show(nearest(data.start + part * (data.end - data.start)));
    });
    plots.addEventListener("pointerleave", hide);
    plots.addEventListener("blur", hide);
    plots.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
      if (event.key === "Escape") hide();
      else if (event.key === "Home") show(0);
      else if (event.key === "End") show(data.rows.length - 1);
      else if (step) show(chosen + step);
      else return;
      event.preventDefault();
    });
  };

  for (const plots of document.querySelectorAll(".plots")) follow(plots);
})();
