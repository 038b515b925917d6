// The shared picture, only ever sent with --share-video: 16 bytes (time in ns, width and height of the frame, little-endian), then a JPEG.

let picture = null;

function takePicture(data) {
  const view = new DataView(data);
  const width = view.getUint32(8, true), height = view.getUint32(12, true);
  createImageBitmap(new Blob([new Uint8Array(data, 16)], { type: "image/jpeg" })).then((image) => {
    if (picture) picture.image.close();
    picture = { image, width, height };
    drawPicture(document.getElementById("picture"));
  }, () => {});
}

function drawPicture(canvas) {
  document.getElementById("picture-part").hidden = !picture;
  if (!picture || paused) return;
  const { image, width, height } = picture, pen = canvas.getContext("2d"), scale = image.width / width;
  canvas.width = image.width;
  canvas.height = image.height;
  pen.drawImage(image, 0, 0);
  pen.lineJoin = "round";
  pen.font = "bold 14px system-ui, sans-serif";
  for (const estimate of state.latest) {
    if (!estimate.face || !estimate.face.box) continue;
    const [x, y, w, h] = estimate.face.box.map((side) => side * scale);
    for (const [colour, thick] of [["#000000", 4], [colourOf(lineOf(estimate)), 2]]) {      // dark behind it: a picture has any colour
      pen.fillStyle = pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.strokeRect(x, y, w, h);
      if (thick === 4) pen.strokeText(`face ${estimate.face.track}`, x + 2, y > 22 ? y - 7 : y + 18);
      else pen.fillText(`face ${estimate.face.track}`, x + 2, y > 22 ? y - 7 : y + 18);
    }
  }
  canvas.setAttribute("aria-label", `newest picture of the camera, ${width} by ${height}, with ${state.latest.filter((e) => e.face).length} faces`);
}
