"""What only lesson 00 needs: a server that asks for a password and keeps what it is told."""

import asyncio
import struct

from checks.kit.testbed.fixtures import fixture

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
ASK_IN_CLEAR_TEXT = b"R" + struct.pack("!ii", 8, 3)
REFUSED = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"


class PasswordPrompt:
    """A server that asks each client for its password and then refuses the login.

    PostgreSQL on a learner's machine may let everybody in, whatever the password is. `logins` has (user, password)
    of each client.
    """

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.logins = []

    async def serve(self, reader, writer):
        """One client, from its first message to the refusal."""
        try:
            code = 0
            while code in (0, SSL_REQUEST, GSS_REQUEST):
                if code:
                    writer.write(b"N")  # no encryption here
                size, code = struct.unpack("!ii", await reader.readexactly(8))
                start = (await reader.readexactly(size - 8)).decode().split("\0")
            writer.write(ASK_IN_CLEAR_TEXT)
            _, size = struct.unpack("!ci", await reader.readexactly(5))
            password = (await reader.readexactly(size - 4))[:-1].decode()
            self.logins.append((start[start.index("user") + 1], password))
            writer.write(b"E" + struct.pack("!i", len(REFUSED) + 4) + REFUSED)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()


@fixture
async def password_prompt(testbed):
    """A server that asks for a password: `password_prompt.logins` is what clients said, at `host` and `port`."""
    listener = await testbed.listen()
    prompt = PasswordPrompt(*listener.getsockname())
    server = await asyncio.start_server(prompt.serve, sock=listener)
    yield prompt
    server.close()
