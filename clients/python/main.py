"""An API that asks scopegate before it does anything. What is no answer is no."""
import logging, os
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

def guard(call: Request):
    head, path = call.headers, call.scope["raw_path"].decode()  # The path as it was sent, not decoded.
    request = pb.CheckRequest(  # The gateway has authenticated the client: these are its headers, not theirs.
        company_id=head.get("x-company"), credential_id=head.get("x-credential"), user_id=head.get("x-user"),
        endpoint={"method": call.method, "path": path}, resource_owner_id=call.path_params.get("user"))
    try:
        answer = SCOPEGATE.Check(request, timeout=0.25, metadata=KEY and [("authorization", f"Bearer {KEY}")])
    except grpc.RpcError as error:  # Malformed is the client's concern, everything else is ours.
        logging.warning("scopegate: %s: %s", error.code().name, error.details())
        bad = error.code() == grpc.StatusCode.INVALID_ARGUMENT
        answer = pb.CheckResponse(http_status=400 * bad, error="invalid_request" * bad, message=error.details() * bad)
    if answer.decision == pb.DECISION_ALLOWED and (answer.reach == pb.REACH_ALL or request.resource_owner_id):
        return
    if answer.decision == pb.DECISION_ALLOWED:  # For the user's own records, and the call says nobody's.
        answer = pb.CheckResponse(http_status=403, error="access_denied", message="You may touch your own records alone.")
    status = answer.http_status if answer.http_status >= 400 else 503  # A 503 also where there was no decision.
    word, scope = {401: "invalid_token", 403: "insufficient_scope"}.get(status), " ".join(answer.missing_scopes)
    header = word and {"WWW-Authenticate": f'Bearer error="{word}"' + f', scope="{scope}"' * bool(scope)}
    error, message = answer.error or "temporarily_unavailable", answer.message or "Try again in a moment."
    raise HTTPException(status, {"error": error, "message": message}, header)

app = FastAPI(openapi_url=None, dependencies=[Depends(guard)], exception_handlers={  # Every route is guarded.
    HTTPException: lambda _, no: JSONResponse(no.detail, no.status_code, no.headers)})
@app.patch("/api/v2/users/{user}")  # Whose record it is was part of the question.
def change(user: str, change: dict):
    return {**change, "id": user}
