# SPDX-License-Identifier: BSD-3-Clause
"""Drives mapping_client: processes with mappings of libumbra, for tests."""
import os
import signal
import subprocess
import threading
import time

BLOCK = 4096
LIMIT_S = 100


class Answer:
    """What a command that has been sent will come to."""
    def __init__(self):
        self.came = threading.Event()
        self.text = None

    def get(self):
        assert self.came.wait(LIMIT_S), 'no answer'
        return self.text

    def is_there(self, wait_s=0):
        return self.came.wait(wait_s)


class Client:
    def __init__(self, program, names, env=None):
        self.process = subprocess.Popen([program, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(env or {})})
        self.answers, self.count, self.lost = {}, 0, 0
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            tag, text = line.rstrip('\n').split(' ', 1)
            self.answers[tag].text = text
            self.answers[tag].came.set()
        for answer in list(self.answers.values()):
            if not answer.came.is_set():
                answer.text = 'the process has ended'
                answer.came.set()

    def send(self, what, index=0, *args):
        self.count += 1
        answer = self.answers[str(self.count)] = Answer()
        self.process.stdin.write(' '.join(map(str, [self.count, what, index, *args])) + '\n')
        self.process.stdin.flush()
        return answer

    def ask(self, what, index=0, *args):
        return self.send(what, index, *args).get()

    def load(self, off, index=0):
        """A number, or the text of what came instead."""
        text = self.ask('load', index, off)
        return int(text, 16) if text.startswith('0') else text

    def read(self, off, index=0):
        text = self.ask('read', index, off)
        return int(text, 16) if text.startswith('0') else text

    def store(self, off, value, index=0):
        return self.ask('store', index, off, value)

    def write(self, off, value, index=0):
        return self.ask('write', index, off, value)

    def let_go(self):
        """Once the process has heard of the end of its daemon: what it had in place until then could still be touched."""
        end = time.monotonic() + LIMIT_S
        while (lost := int(self.ask('counts').split()[2])) == self.lost:
            assert time.monotonic() < end, 'it does not hear of the end'
            time.sleep(0.01)
        self.lost = lost

    def stop(self):
        """All of its threads: the kernel tells the parent when the last one has come to rest. Until then any may go on."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(LIMIT_S) == 0, f'it ended with {self.process.returncode}'

    def kill(self):
        self.process.kill()
        self.process.wait()


def word(block, at=0):
    """What the file has there: see file_make()."""
    return block << 32 | at


def file_make(name, blocks):
    with open(name, 'wb') as f:
        f.write(b''.join(word(b, at).to_bytes(8, 'little') for b in range(blocks) for at in range(BLOCK // 8)))


def equal(got, want, what):
    shown = [hex(x) if isinstance(x, int) else x for x in (got, want)]
    assert got == want, f'{what}: {shown[0]}, not {shown[1]}'
