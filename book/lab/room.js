// The house.  Every other file of the subject is one *room*: a function that takes the namespace `lab` and puts its names there.
//
// Why not modules (import, export)?  Chromium loads no module from a file: address, and this page must work when it is opened from disk.  A classic script does
// load, and a room that is one function can also be handed to a worker as text (`lab.worker` in worker.js does so), because a worker may not load files
// there either.
// In Node, `require` runs the same files unchanged: so the tests compare these very lines with the Python's numbers.
//
// Read in the Python's order: schedules, forward, samplers, guidance, exact, unet.  Names, letters and the order of arguments are the Python's.
"use strict";

globalThis.lab = {};
globalThis.ROOMS = [];
globalThis.FILES = {};                                          // what comes as base64, such as the weights: a page from disk may not fetch

globalThis.room = build => {
  ROOMS.push(build);
  build(lab);
};
