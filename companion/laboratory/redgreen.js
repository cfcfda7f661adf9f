// The images of the BHV test: two blocks side by side on a canvas of one value.
"use strict";

// Paint one into a network's input. `columns` are the first columns of both blocks, px; in order 0
// the left one is red and the right one green, in order 1 the other way round.
function paintBlocks(map, canvas, block, columns, order, row) {
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < map.height; y++) {
      for (let x = 0; x < map.width; x++) {
        const which = columns.findIndex((left) => x >= left && x < left + block);
        const inside = which >= 0 && y >= row && y < row + block;
        const value = inside ? Number(c === (which ^ order)) : canvas;
        map.cells[c * map.plane + (map.pad + y) * map.row + map.pad + x] = value;
      }
    }
  }
}
