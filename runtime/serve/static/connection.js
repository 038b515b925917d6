// The WebSocket, opened again for as long as the page is open. A server that says nothing, not even its pulse, is taken for lost.

const SILENCE_MS = 5000;
const WAIT_MS = [500, 1000, 2000, 4000, 5000];
const connection = { state: "opening", heard: 0, failures: 0, retryAt: 0, socket: null };

function connect() {
  const address = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${location.pathname}${location.search}`;
  const socket = new WebSocket(address);
  let first = true;
  socket.binaryType = "arraybuffer";
  connection.socket = socket;
  connection.heard = performance.now();
  socket.onmessage = (event) => {
    const at = performance.now();
    connection.heard = at;
    if (first) {                          // what is known comes again from the start
      first = false;
      state = fresh();
      Object.assign(connection, { state: "live", failures: 0 });
    }
    if (typeof event.data === "string") take(JSON.parse(event.data), at);
    else takePicture(event.data);
    changed = true;
  };
  socket.onclose = () => lost(socket);
}

function lost(socket) {
  if (socket !== connection.socket) return;
  const wait = WAIT_MS[Math.min(connection.failures, WAIT_MS.length - 1)];
  Object.assign(connection, { state: "lost", socket: null, failures: connection.failures + 1, retryAt: performance.now() + wait });
  changed = true;
}

/** Called a few times a second. */
function watchConnection(at) {
  const { socket } = connection;
  if (socket && at - connection.heard > SILENCE_MS) {
    lost(socket);
    socket.close();
  }
  if (!connection.socket && at >= connection.retryAt) connect();
}

window.addEventListener("online", () => { connection.retryAt = 0; });
