// Express with its defaults: it ignores case and a trailing slash. `node express.js MODULE`
const { routes, port, written } = require("./routes.js");
const old = process.argv[2] === "express4";
const express = require(process.argv[2]);

const how = { parameter: (name) => `:${name}`, rest: (name) => (old ? ":" + name + "(*)" : `*${name}`), colon: "\\:" };
const app = express();
for (const { method, path, scope } of routes) {
  app[method.toLowerCase()](written(path, how), (call, reply) => {
    reply.set({ "x-handler": scope, "x-path": call.originalUrl.split("?")[0] });
    reply.json({ handler: scope, params: call.params });
  });
}
app.listen(port, "127.0.0.1");
