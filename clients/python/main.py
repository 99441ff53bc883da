"""An API that calls a handler only if scopegate allows the request."""
import logging
import grpc
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from connection import AUTHORIZATION, METADATA, TIMEOUT
from scopegate.v1 import authorization_pb2 as pb

def guard(call: Request):
    owner, path = call.path_params.get("user"), call.scope["raw_path"].decode()  # As it was sent, not decoded.
    header = call.headers.get("authorization")
    if header is None:
        raise refusal(401, "invalid_token", "Send credentials.", {"WWW-Authenticate": "Bearer"})
    check = pb.CheckRequest(
        authorization=header, endpoint={"method": call.method, "path": path}, resource_owner_id=owner)
    try:
        response = AUTHORIZATION.Check(check, timeout=TIMEOUT, metadata=METADATA)
    except grpc.RpcError as error:
        logging.warning("scopegate: %s: %s", error.code().name, error.details())
        if error.code() == grpc.StatusCode.INVALID_ARGUMENT:  # The client's mistake. Other errors are not.
            raise refusal(400, "invalid_request", error.details())
        response = pb.CheckResponse()
    if response.decision == pb.DECISION_ALLOWED and (response.reach == pb.REACH_ALL or owner):
        return
    if response.decision == pb.DECISION_ALLOWED:  # For the user's own records, but the route names no owner.
        response = pb.CheckResponse(http_status=403, error="access_denied", message="Only your own records.")
    if response.http_status < 400:  # Without a decision, the request is not allowed.
        message = "Try again in a moment."
        response = pb.CheckResponse(http_status=503, error="temporarily_unavailable", message=message)
    headers = {"Retry-After": "1"} if response.http_status == 503 else {}
    if code := {401: "invalid_token", 403: "insufficient_scope"}.get(response.http_status):
        scopes = " ".join(response.missing_scopes) if response.error == "invalid_scope" else ""
        headers["WWW-Authenticate"] = f'Bearer error="{code}"' + (f', scope="{scopes}"' if scopes else "")
    raise refusal(response.http_status, response.error, response.message, headers)

def refusal(status, error, message, headers=None):
    return HTTPException(status, {"error": error, "message": message}, headers)

app = FastAPI(openapi_url=None, dependencies=[Depends(guard)], exception_handlers={  # For every route.
    HTTPException: lambda _, error: JSONResponse(error.detail, error.status_code, error.headers)})

@app.patch("/api/v2/users/{user}")  # The path parameter `user` names the owner of the record.
def change(user: str, change: dict):
    return {**change, "id": user}
