// Koa's router with its defaults: it ignores case and a trailing slash.
const { port, written, shared, chosen } = require("./routes.js");
const Koa = require("koa");
const { Router } = require("@koa/router");

const how = { parameter: (name) => `:${name}`, rest: (name) => `{*${name}}`, colon: "\\:" };
const router = new Router();
for (const shape of shared()) {
  router[shape.method.toLowerCase()](written(shape.path, how), (call, next) => {
    const route = chosen(shape, call.params);
    if (!route) return next();
    call.set({ "x-handler": route.scope, "x-path": call.originalUrl.split("?")[0] });
    call.body = { handler: route.scope, params: call.params };
  });
}
const app = new Koa({ });
app.silent = true;
app.use(router.routes()).listen(port, "127.0.0.1");
