"""An API that asks scopegate before it does anything. What is no answer is no."""
import os
import grpc
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from scopegate.v1 import authorization_pb2 as pb
from scopegate.v1.authorization_pb2_grpc import AuthorizationServiceStub

RETRY = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 2, "initialBackoff": "0.02s",
    "maxBackoff": "0.02s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""
CHANNEL = grpc.insecure_channel(os.environ.get("SCOPEGATE_ADDRESS", "127.0.0.1:50051"), [  # One for the process.
    ("grpc.service_config", RETRY), ("grpc.keepalive_time_ms", 30000), ("grpc.max_reconnect_backoff_ms", 1000)])
SCOPEGATE, KEY = AuthorizationServiceStub(CHANNEL), os.environ.get("SCOPEGATE_KEY")

def guard(call: Request):  # Returns the user whose records alone may be touched, or None for everybody's.
    head, path = call.headers, call.scope["raw_path"].decode()  # The path as it was sent, not decoded.
    request = pb.CheckRequest(  # The gateway has authenticated the client: these are its headers, not theirs.
        company_id=head.get("x-company"), credential_id=head.get("x-credential"), user_id=head.get("x-user"),
        endpoint={"method": call.method, "path": path}, resource_owner_id=call.path_params.get("user"))
    try:
        answer = SCOPEGATE.Check(request, timeout=0.25, metadata=KEY and [("authorization", f"Bearer {KEY}")])
    except grpc.RpcError as error:  # Malformed is the client's concern, everything else is ours.
        bad = error.code() == grpc.StatusCode.INVALID_ARGUMENT
        answer = pb.CheckResponse(http_status=400 if bad else 503, error="invalid_request" if bad else "")
    if answer.decision == pb.DECISION_ALLOWED:
        return None if answer.reach == pb.REACH_ALL else request.user_id
    status = answer.http_status if answer.http_status >= 400 else 503  # A 503 also where there was no decision.
    word = {401: "invalid_token", 403: "insufficient_scope"}.get(status)
    header = word and {"WWW-Authenticate": f'Bearer error="{word}", scope="{" ".join(answer.missing_scopes)}"'}
    raise HTTPException(status, {"error": answer.error or "unavailable", "message": answer.message}, header)

app = FastAPI(openapi_url=None, dependencies=[Depends(guard)], exception_handlers={  # Every route is guarded.
    HTTPException: lambda _, no: JSONResponse(no.detail, no.status_code, no.headers)})
@app.get("/api/v2/users")
def users(only=Depends(guard)):
    return [user for user in ("7", "8") if only in (None, user)]
@app.patch("/api/v2/users/{user}")  # Whose record it is was part of the question.
def change(user: str, change: dict):
    return {**change, "id": user}
