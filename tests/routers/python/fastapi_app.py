"""FastAPI: its router matches the decoded path."""

import json
import os
import re

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

app = FastAPI(openapi_url=None)


def handler(scope):
    async def answer(call: Request):
        path = call.scope["raw_path"].decode("latin-1")
        headers = {"x-handler": scope, "x-path": path}
        return JSONResponse({"handler": scope, "params": call.path_params}, headers=headers)

    return answer


for route in json.load(open(os.environ["ROUTES"])):
    template = re.sub(r"\{(\w+)\+\}", r"{\1:path}", route["path"])
    app.add_api_route(template, handler(route["scope"]), methods=[route["method"]])
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error")
