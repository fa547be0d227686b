// preStop of a gateway that stands beside Sidekey as a plain container: both are told to stop at once, so the gateway waits
// until Sidekey has ended (its admin port refuses), and only then gets its SIGTERM.
"use strict";

const net = require("node:net");
const port = Number(process.argv[2]);

function look() {
  const socket = net.connect({ port, host: "127.0.0.1" });
  socket.once("connect", () => {
    socket.destroy();
    setTimeout(look, 200);
  });
  socket.once("error", () => process.exit(0));
}
look();
