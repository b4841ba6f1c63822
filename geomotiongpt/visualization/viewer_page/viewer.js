"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const [play, clock, timeline, readout] = ["play", "clock", "timeline", "readout"].map(element);
  const AZIMUTH = (50 * Math.PI) / 180, ELEVATION = (16 * Math.PI) / 180, HALF_FIELD = (16 * Math.PI) / 180;
  const NEAR = 0.1, SQUARE = 0.5, BONE_WIDTH = 0.05, HEAD_RADIUS = 0.09; // metres
  const LARGEST_VIEW = 4; // metres: on longer paths the camera follows
  const HUE_STEP = 137.508; // degrees: neighbouring codes get colours far apart

  const numJoints = data.sides.length;
  const numFrames = Math.max(...data.motions.map((motion) => motion.frames));
  const duration = numFrames / data.fps;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const camera = { azimuth: AZIMUTH, elevation: ELEVATION, zoom: 1 };
  let time = 0, playing = false, before = null, speed = 1, colours = {};

  // Positions, as (frames, joints, 3) in one array.
  function decode(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  }

  function boundsOf(joints) {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (let index = 0; index < joints.length; index++) {
      low[index % 3] = Math.min(low[index % 3], joints[index]);
      high[index % 3] = Math.max(high[index % 3], joints[index]);
    }
    return { low, high };
  }

  const stages = data.motions.map((motion) => {
    const joints = decode(motion.joints);
    const { low, high } = boundsOf(joints);
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-describedby", "help");
    const seconds = (motion.frames / data.fps).toFixed(1);
    canvas.setAttribute("aria-label", `Stick figure, ${seconds} seconds: ${motion.caption || "a motion"}`);
    figure.append(canvas);
    if (data.motions.length > 1) {
      const caption = document.createElement("figcaption");
      caption.dir = "auto";
      caption.textContent = motion.caption;
      figure.append(caption);
    }
    element("stages").append(figure);
    const middle = low.map((value, axis) => (value + high[axis]) / 2);
    const wide = Math.hypot(high[0] - low[0], high[2] - low[2]);
    return { motion, joints, canvas, pen: canvas.getContext("2d"), middle, wide, height: high[1], tokens: [] };
  });
  document.body.classList.toggle("several", stages.length > 1);
  const widest = Math.max(...stages.map((stage) => stage.wide));
  const tallest = Math.max(...stages.map((stage) => stage.height), 0.5);
  const follow = element("follow");
  follow.checked = widest > LARGEST_VIEW;

  // Motion tokens: a strip a motion, under the timeline.

  const shown = (seconds) => seconds.toFixed(2);
  function describe(stage, index) {
    const { codes, framesPerCode } = stage.motion;
    const start = (index * framesPerCode) / data.fps, end = ((index + 1) * framesPerCode) / data.fps;
    return `token ${index + 1} of ${codes.length}: code ${codes[index]}, ${shown(start)} to ${shown(end)} s`;
  }

  const withTokens = stages.filter((stage) => stage.motion.codes);
  for (const stage of withTokens) {
    const { codes, framesPerCode, caption } = stage.motion;
    const strip = document.createElement("div"), list = document.createElement("ol");
    strip.className = "strip";
    list.setAttribute("aria-label", caption ? `Motion tokens: ${caption}` : "Motion tokens");
    if (stages.length > 1) {
      const label = document.createElement("p");
      label.dir = "auto";
      label.textContent = caption;
      strip.append(label);
    }
    codes.forEach((code, index) => {
      const item = document.createElement("li");
      item.style.setProperty("--hue", String((code * HUE_STEP) % 360));
      const first = Math.max(index * framesPerCode - 0.5, 0);
      const last = Math.min((index + 1) * framesPerCode - 0.5, numFrames - 1);
      item.style.width = `${(100 * Math.max(last - first, 0)) / Math.max(numFrames - 1, 1)}%`;
      item.title = `code ${code}`;
      item.dataset.code = code;
      item.setAttribute("aria-label", describe(stage, index));
      item.addEventListener("pointerenter", () => { readout.textContent = describe(stage, index); });
      item.addEventListener("click", () => {
        pause();
        seek(Math.ceil(index * framesPerCode));
        readout.textContent = describe(stage, index);
      });
      list.append(item);
      stage.tokens.push(item);
    });
    list.addEventListener("pointerleave", sayNow);
    strip.append(list);
    element("tokens").append(strip);
  }

  function sayNow() {
    const parts = withTokens.map((stage) => {
      const index = tokenAt(stage);
      return index < stage.tokens.length ? describe(stage, index) : "after the last token";
    });
    readout.textContent = parts.join("; ");
  }

  const frameNow = () => Math.min(Math.floor(time * data.fps + 1e-6), numFrames - 1);
  const tokenAt = (stage) => Math.floor(frameNow() / stage.motion.framesPerCode);

  // Drawing

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["stage", "grid", "shadow", "left", "right", "centre", "trail"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
  }

  // Joints between two frames, as (joints, 3).
  function pose(stage) {
    const place = Math.min(time * data.fps, stage.motion.frames - 1);
    const start = Math.floor(place), share = place - start, size = 3 * numJoints;
    const now = stage.joints.subarray(start * size, (start + 1) * size);
    if (share === 0 || start + 1 >= stage.motion.frames) return now;
    const next = stage.joints.subarray((start + 1) * size, (start + 2) * size);
    return now.map((value, index) => value + share * (next[index] - value));
  }

  // Camera: axes of the picture in the world, how far it is, and what a metre there is in pixels at unit depth.
  function look(stage, joints) {
    const { width, height } = stage.canvas;
    const [sinA, cosA] = [Math.sin(camera.azimuth), Math.cos(camera.azimuth)];
    const [sinE, cosE] = [Math.sin(camera.elevation), Math.cos(camera.elevation)];
    const focal = height / 2 / Math.tan(HALF_FIELD);
    const field = Math.min(1, width / height); // in a narrow picture the width is what limits
    const radius = follow.checked ? 0.62 * tallest : 0.5 * Math.hypot(widest, tallest);
    const centre = follow.checked ? [joints[0], 0.5 * tallest, joints[2]] : [stage.middle[0], 0.5 * tallest, stage.middle[2]];
    return {
      right: [cosA, 0, sinA], up: [sinA * sinE, cosE, -cosA * sinE], towards: [-sinA * cosE, sinE, cosA * cosE],
      centre, focal, distance: radius / Math.sin(HALF_FIELD * field) / camera.zoom, x: width / 2, y: height / 2,
    };
  }

  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  function seen(view, point) { // right, up and depth
    const from = [point[0] - view.centre[0], point[1] - view.centre[1], point[2] - view.centre[2]];
    return [dot(from, view.right), dot(from, view.up), view.distance - dot(from, view.towards)];
  }
  const toPixel = (view, [x, y, depth]) => [view.x + (view.focal * x) / depth, view.y - (view.focal * y) / depth];

  // A line from a to b, cut where it passes the camera; false where nothing of it is in front.
  function trace(pen, view, a, b) {
    let from = seen(view, a), to = seen(view, b);
    if (from[2] < NEAR && to[2] < NEAR) return false;
    if (from[2] < NEAR || to[2] < NEAR) {
      const share = (NEAR - from[2]) / (to[2] - from[2]);
      const cut = from.map((value, axis) => value + share * (to[axis] - value));
      if (from[2] < NEAR) from = cut; else to = cut;
    }
    pen.moveTo(...toPixel(view, from));
    pen.lineTo(...toPixel(view, to));
    return true;
  }

  function drawFloor(pen, view, ratio) {
    const reach = Math.min(Math.max(3, 0.75 * view.distance), 20);
    const step = reach > 8 ? 2 * SQUARE : SQUARE, count = Math.ceil(reach / step), levels = 5;
    const [x, z] = [view.centre[0], view.centre[2]].map((value) => step * Math.round(value / step));
    const paths = Array.from({ length: levels }, () => []);
    for (let i = -count; i <= count; i++) {
      for (let j = -count; j < count; j++) {
        const level = Math.floor((levels * Math.hypot(i, j + 0.5)) / count);
        if (level >= levels) continue;
        paths[level].push([[x + i * step, 0, z + j * step], [x + i * step, 0, z + (j + 1) * step]]);
        paths[level].push([[x + j * step, 0, z + i * step], [x + (j + 1) * step, 0, z + i * step]]);
      }
    }
    pen.strokeStyle = colours.grid;
    pen.lineWidth = ratio;
    paths.forEach((lines, level) => {
      pen.globalAlpha = 1 - level / levels;
      pen.beginPath();
      for (const [a, b] of lines) trace(pen, view, a, b);
      pen.stroke();
    });
    pen.globalAlpha = 1;
  }

  function drawTrail(pen, view, stage, joints, ratio) {
    const size = 3 * numJoints, last = Math.min(Math.floor(time * data.fps), stage.motion.frames - 1);
    const ground = (frame) => [stage.joints[frame * size], 0, stage.joints[frame * size + 2]];
    pen.strokeStyle = pen.fillStyle = colours.trail;
    pen.lineWidth = 2.5 * ratio;
    for (const [alpha, start, end] of [[0.3, last, stage.motion.frames - 1], [1, 0, last]]) {
      pen.globalAlpha = alpha;
      pen.beginPath();
      for (let frame = start; frame < end; frame++) trace(pen, view, ground(frame), ground(frame + 1));
      if (alpha === 1) trace(pen, view, ground(last), [joints[0], 0, joints[2]]);
      pen.stroke();
    }
    const root = seen(view, [joints[0], 0, joints[2]]);
    if (root[2] < NEAR) return;
    pen.beginPath();
    pen.arc(...toPixel(view, root), 4 * ratio, 0, 2 * Math.PI);
    pen.fill();
  }

  const joint = (joints, index, height = 1) => [joints[3 * index], height * joints[3 * index + 1], joints[3 * index + 2]];

  function drawBone(pen, view, a, b, colour, extra, ratio) {
    const depth = (seen(view, a)[2] + seen(view, b)[2]) / 2;
    pen.strokeStyle = colour;
    pen.lineWidth = Math.max((BONE_WIDTH * view.focal) / Math.max(depth, NEAR), 2 * ratio) + extra;
    pen.beginPath();
    if (trace(pen, view, a, b)) pen.stroke();
  }

  function drawFigure(pen, view, joints, ratio) {
    const parts = data.bones.map(([from, to]) => {
      const [a, b] = [joint(joints, from), joint(joints, to)];
      return { a, b, colour: colours[data.sides[to]], depth: (seen(view, a)[2] + seen(view, b)[2]) / 2 };
    });
    const head = seen(view, joint(joints, data.head));
    parts.push({ head, depth: head[2] });
    parts.sort((one, other) => other.depth - one.depth);
    for (const part of parts) {
      if (!part.head) {
        drawBone(pen, view, part.a, part.b, colours.stage, 3 * ratio, ratio); // an outline keeps crossing limbs apart
        drawBone(pen, view, part.a, part.b, part.colour, 0, ratio);
      } else if (head[2] > NEAR) {
        pen.fillStyle = colours.centre;
        pen.beginPath();
        pen.arc(...toPixel(view, head), (HEAD_RADIUS * view.focal) / head[2], 0, 2 * Math.PI);
        pen.fill();
      }
    }
  }

  function drawStage(stage) {
    const { canvas, pen } = stage, ratio = canvas.width / Math.max(canvas.clientWidth, 1);
    const joints = pose(stage), view = look(stage, joints);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.lineCap = pen.lineJoin = "round";
    drawFloor(pen, view, ratio);
    for (const [from, to] of data.bones) {
      drawBone(pen, view, joint(joints, from, 0), joint(joints, to, 0), colours.shadow, 0, ratio);
    }
    drawTrail(pen, view, stage, joints, ratio);
    drawFigure(pen, view, joints, ratio);
  }

  let drawAsked = false;
  function draw() { // at most once a frame of the screen
    if (drawAsked) return;
    drawAsked = true;
    requestAnimationFrame(() => {
      drawAsked = false;
      stages.forEach(drawStage);
    });
  }

  // Time

  function update() {
    const frame = frameNow();
    const now = `${(frame / data.fps).toFixed(1)} of ${duration.toFixed(1)} s`;
    timeline.value = String(frame);
    timeline.setAttribute("aria-valuetext", now);
    clock.textContent = now;
    for (const stage of withTokens) {
      const index = tokenAt(stage);
      stage.tokens.forEach((item, number) => item.classList.toggle("now", number === index));
    }
    if (!element("tokens").matches(":hover")) sayNow();
    draw();
  }

  function seek(frame) {
    time = Math.min(Math.max(frame, 0), numFrames - 1) / data.fps;
    update();
  }

  function tick(now) {
    if (!playing) return;
    time += before === null ? 0 : ((now - before) / 1000) * speed;
    before = now;
    if (time >= duration) time %= duration;
    update();
    requestAnimationFrame(tick);
  }

  function setPlaying(wanted) {
    if (playing === wanted) return;
    playing = wanted;
    before = null;
    play.lastChild.textContent = playing ? "Pause" : "Play";
    play.classList.toggle("playing", playing);
    if (playing) requestAnimationFrame(tick);
  }
  const pause = () => setPlaying(false);

  play.addEventListener("click", () => setPlaying(!playing));
  timeline.max = String(numFrames - 1);
  timeline.addEventListener("input", () => { pause(); seek(Number(timeline.value)); });
  element("speed").addEventListener("change", (event) => { speed = Number(event.target.value); });
  follow.addEventListener("change", draw);
  calm.addEventListener("change", () => { if (calm.matches) pause(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });

  // View

  function orbit(right, up) {
    camera.azimuth -= right;
    camera.elevation = Math.min(Math.max(camera.elevation + up, -0.05), Math.PI / 2 - 0.01);
    draw();
  }
  function zoom(factor) {
    camera.zoom = Math.min(Math.max(camera.zoom * factor, 0.15), 8);
    draw();
  }
  function resetView() {
    Object.assign(camera, { azimuth: AZIMUTH, elevation: ELEVATION, zoom: 1 });
    draw();
  }
  element("reset").addEventListener("click", resetView);

  const pointers = new Map();
  const spread = () => {
    const [one, other] = [...pointers.values()];
    return Math.hypot(one.x - other.x, one.y - other.y);
  };
  for (const { canvas } of stages) {
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const apart = pointers.size === 2 ? spread() : 0;
      const moved = [event.clientX - last.x, event.clientY - last.y];
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (pointers.size === 1) orbit(-moved[0] * 0.008, moved[1] * 0.008);
      else if (pointers.size === 2 && apart > 0) zoom(spread() / apart);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)));
    }, { passive: false });
  }

  const viewKeys = {
    ArrowLeft: () => orbit(-0.1, 0), ArrowRight: () => orbit(0.1, 0), ArrowUp: () => orbit(0, 0.1),
    ArrowDown: () => orbit(0, -0.1), "+": () => zoom(1.15), "=": () => zoom(1.15), "-": () => zoom(1 / 1.15),
    0: resetView,
  };
  const timeKeys = {
    ArrowLeft: () => seek(frameNow() - 1), ArrowRight: () => seek(frameNow() + 1), Home: () => seek(0),
    End: () => seek(numFrames - 1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = event.target.tagName;
    if (event.key === " ") {
      if (["BUTTON", "SELECT"].includes(name) || event.target === follow) return; // they have their own use for it
      event.preventDefault();
      setPlaying(!playing);
      return;
    }
    if (name === "SELECT" || name === "INPUT") return;
    const action = (name === "CANVAS" && viewKeys[event.key]) || timeKeys[event.key];
    if (!action) return;
    event.preventDefault();
    if (action === timeKeys[event.key]) pause();
    action();
  });

  new ResizeObserver(() => {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    for (const { canvas } of stages) {
      const size = [canvas.clientWidth, canvas.clientHeight].map((value) => Math.max(1, Math.round(value * ratio)));
      if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    }
    draw();
  }).observe(element("stages"));

  readColours();
  update();
  if (!calm.matches && numFrames > 1) setPlaying(true);
})();
