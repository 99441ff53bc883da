// Hono: its server normalizes a target as a browser does, and resolves `/a/../b` and `\`.
const { port, written, shared, chosen } = require("./routes.js");
const { Hono } = require("hono");
const { serve } = require("@hono/node-server");

const how = { parameter: (name) => `:${name}`, rest: (name) => `:${name}{.+}`, colon: ":" };
const app = new Hono();
for (const shape of shared()) {
  app.on(shape.method, written(shape.path, how), (call) => {
    const params = call.req.param();
    const route = chosen(shape, params);
    if (!route) return call.notFound();
    return call.json({ handler: route.scope, params }, 200, {
      "x-handler": route.scope, "x-path": call.env.incoming.url.split("?")[0],
    });
  });
}
serve({ fetch: app.fetch, port, hostname: "127.0.0.1" });
