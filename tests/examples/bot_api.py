"""Telegram's Bot API on this machine, as far as the bot needs it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import attrs
from aiohttp import web

from .program import PATIENCE_S

TOKEN = "42:s3cr3t-token"
_LARGEST = 50_000_000  # bytes of a document, as the real one says
_DATE = 1_700_000_000
_BOT = {"id": 42, "is_bot": True, "first_name": "Images", "username": "images_bot"}
_PHOTO = {"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}
_DOCUMENT = {"file_id": "f", "file_unique_id": "u"}


@attrs.define
class Chat:
    """What one user sees of the bot.

    Attributes:
        texts: Those of its messages, oldest first.
        photos: The files that came as photos.
        documents: The files that came as documents.
        blocks_after: How many messages it takes until the user blocks the bot.
        refused: How many calls that has refused.
    """

    texts: list[str] = attrs.field(factory=list[str])
    photos: list[bytes] = attrs.field(factory=list[bytes])
    documents: list[bytes] = attrs.field(factory=list[bytes])
    blocks_after: float = math.inf
    refused: int = 0


class BotAPI:
    """The API, for one bot.

    Attributes:
        chats: By the user's id.
        failures: HTTP statuses that the next files are answered with.
    """

    def __init__(self) -> None:
        self.chats: dict[int, Chat] = {}
        self.failures: list[int] = []
        self._updates: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._messages = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_post("/bot{token}/{method}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it is."""
        assert self._runner is not None
        host, port = self._runner.addresses[0]
        return f"http://{host}:{port}"

    def send(self, user: int, text: str) -> Chat:
        """Let a user send the bot a text, and give the chat."""
        self._messages += 1
        message = {**self._message(user, self._messages), "text": text}
        message["from"] = {"id": user, "is_bot": False, "first_name": "U"}
        self._updates.append({"update_id": len(self._updates) + 1, "message": message})
        self._change()
        return self.chats.setdefault(user, Chat())

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait until something is so that only a call of the bot can change."""
        async with asyncio.timeout(PATIENCE_S):
            while not happened():
                await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @staticmethod
    def _message(user: int, number: int) -> dict[str, Any]:
        return {"message_id": number, "date": _DATE, "chat": {"id": user, "type": "private"}}

    async def _answer(self, request: web.Request) -> web.Response:
        if request.match_info["token"] != TOKEN:
            return _no(HTTPStatus.UNAUTHORIZED, "Unauthorized")
        form: dict[str, Any] = dict(await request.post())
        method = request.match_info["method"]
        match method:
            case "getMe":
                return _yes(_BOT)
            case "getUpdates":
                return _yes(await self._get_updates(form))
        chat = self.chats[user := int(form["chat_id"])]
        if len(chat.texts) >= chat.blocks_after:
            chat.refused += 1
            self._change()
            return _no(HTTPStatus.FORBIDDEN, "Forbidden: bot was blocked by the user")
        try:
            return self._take(method, user, chat, form)
        finally:
            self._change()

    async def _get_updates(self, form: dict[str, Any]) -> list[dict[str, Any]]:
        """Give the updates from an offset on; wait for them as long as the bot says."""
        offset = int(form.get("offset", 0))
        try:
            async with asyncio.timeout(int(form.get("timeout", 0))):
                await self.until(lambda: any(up["update_id"] >= offset for up in self._updates))
        except TimeoutError:
            return []
        return [update for update in self._updates if update["update_id"] >= offset]

    def _take(self, method: str, user: int, chat: Chat, form: dict[str, Any]) -> web.Response:
        if self.failures and method != "sendMessage":
            return _no(self.failures.pop(0), "trouble")
        self._messages += 1
        told = self._message(user, self._messages)
        match method:
            case "sendMessage":
                chat.texts.append(form["text"])
                return _yes({**told, "text": form["text"]})
            case "sendPhoto":
                chat.photos.append(_file(form, "photo"))
                return _yes({**told, "photo": [_PHOTO]})
            case "sendDocument":
                chat.documents.append(_file(form, "document"))
                return _yes({**told, "document": _DOCUMENT})
            case _:
                return _no(HTTPStatus.NOT_FOUND, "Not Found: method not found")


def _file(form: dict[str, Any], field: str) -> bytes:
    """Give the bytes of a file: its field names the part that has them."""
    name = str(form[field]).removeprefix("attach://")
    content: bytes = form[name].file.read()
    return content


def _yes(result: Any) -> web.Response:
    return web.json_response({"ok": True, "result": result})


def _no(status: int, description: str) -> web.Response:
    told = {"ok": False, "error_code": int(status), "description": description}
    return web.json_response(told, status=status)
