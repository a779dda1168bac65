"""The storage of objects in LFS, at addresses that are signed and take no token."""

from __future__ import annotations

import hashlib
import re

from .messages import OID, Request, Response, Route
from .state import ApiError


def keep_object(request: Request, oid: str, content: bytes) -> Response:
    """Keep an object whose content is what its name says."""
    if hashlib.sha256(content).hexdigest() != oid:
        raise ApiError(400, "the content does not match its SHA-256")
    request.state.objects[oid] = content
    return Response(ETag=f'"{oid}"')


def refuse_token(request: Request) -> None:
    """What a presigned address does to a request that brings a token too."""
    if "Authorization" in request.headers:
        raise ApiError(400, "only one authentication mechanism is allowed: the address is signed")


def put_object(request: Request, oid: str) -> Response:
    """An object, whole."""
    refuse_token(request)
    return keep_object(request, oid, request.body)


def put_part(request: Request, oid: str, number: str) -> Response:
    """A part of an object; its digest is told at the end."""
    refuse_token(request)
    request.state.parts.setdefault(oid, {})[int(number)] = request.body
    return Response(ETag=f'"{hashlib.md5(request.body).hexdigest()}"')


def get_object(request: Request, oid: str) -> Response:
    """An object, or a range of it."""
    refuse_token(request)
    if oid not in request.state.objects:
        raise ApiError(404, "no such object")
    content = request.state.objects[oid]
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if not asked:
        return Response(200, content, ETag=f'"{oid}"', Accept_Ranges="bytes")
    start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    if start >= len(content):
        raise ApiError(416, "the range is behind the end")
    span = f"bytes {start}-{end}/{len(content)}"
    return Response(206, content[start : end + 1], ETag=f'"{oid}"', Content_Range=span)


STORAGE_ROUTES: list[Route] = [
    ("PUT", rf"/objects/{OID}", put_object),
    ("GET", rf"/objects/{OID}", get_object),
    ("PUT", rf"/parts/{OID}/(?P<number>\d+)", put_part),
]
