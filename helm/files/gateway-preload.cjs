// Loaded into the gateway before its own code, by NODE_OPTIONS=--require. The gateway listens on every address, without
// authentication, and has no option for it; as process 1 of a container it ignores SIGTERM. Three things change:
//
// - every TCP listener of the process is bound to loopback;
// - once the gateway listens, GET /healthz on SIDEKEY_GATEWAY_HEALTH_PORT answers "ok" from the same event loop;
// - SIGTERM lets running answers finish and ends the process.
"use strict";

const net = require("node:net");
const http = require("node:http");

const LOOPBACK = "127.0.0.1";
const healthPort = Number(process.env.SIDEKEY_GATEWAY_HEALTH_PORT || 0);
const servers = new Set();
const listen = net.Server.prototype.listen;
const health = http.createServer({ maxHeaderSize: 8192, requestTimeout: 5000 }, (request, response) => {
  const well = request.method === "GET" && request.url === "/healthz" && [...servers].some((server) => server.listening);
  response.writeHead(well ? 200 : 503, { "content-type": "text/plain", connection: "close" }).end(well ? "ok\n" : "not listening\n");
});

// The forms of listen(): (options), (port[, host][, backlog]), (path), (handle); a callback may stand last.
function toLoopback(given) {
  const [first, ...rest] = given;
  const callbacks = given.filter((one) => typeof one === "function").slice(-1);
  if (first !== null && typeof first === "object") {
    const tcp = first.path === undefined && first.fd === undefined && first._handle === undefined && first.port !== undefined;
    if (tcp) return [{ ...first, host: LOOPBACK, ipv6Only: false }, ...rest];
    if (first.path !== undefined) return given;
    throw new Error("sidekey: a listener on a handle cannot be bound to loopback");
  }
  if (typeof first === "string" && !/^\d+$/.test(first)) return given; // a socket file
  const port = typeof first === "function" || first == null ? 0 : Number(first);
  const backlog = rest.find((one) => typeof one === "number");
  return [{ port, host: LOOPBACK, ...(backlog === undefined ? {} : { backlog }) }, ...callbacks];
}

net.Server.prototype.listen = function (...given) {
  if (this === health) return listen.apply(this, given);
  servers.add(this);
  this.once("close", () => servers.delete(this));
  if (healthPort && !health.listening) this.once("listening", () => health.listening || listen.call(health, { port: healthPort }));
  return listen.apply(this, toLoopback(given));
};

health.on("error", (error) => {
  console.error(`sidekey: health port ${healthPort}: ${error.code}`);
  process.exit(1);
});
health.unref();

process.on("SIGTERM", () => {
  let open = servers.size;
  if (open === 0) process.exit(0);
  for (const server of servers) {
    server.close(() => --open || process.exit(0));
    server.closeIdleConnections?.();
  }
  // Connections that become idle later would be kept for their next request.
  setInterval(() => servers.forEach((server) => server.closeIdleConnections?.()), 100).unref();
});
