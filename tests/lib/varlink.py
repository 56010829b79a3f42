#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A Varlink client in python, of the standard library only.

    varlink.py SOCKET                          what is served there
    varlink.py SOCKET INTERFACE                its description, as it was read
    varlink.py SOCKET INTERFACE.METHOD [KEY=VALUE...]   a call; VALUE is text or JSON,
                                               as the description wants it
    varlink.py --more [--count=N] SOCKET ...   a call that is answered again and again
    varlink.py --examples [--except=METHOD] SOCKET INTERFACE
                                               a call of each method, made from its
                                               description, and whether its answer is
                                               what the description says

It knows no interface: calls are made, and answers checked, by the description that
the server itself gives. Answers are printed as JSON, one a line. The exit status is
1 where the answer is an error, 3 where it is not what the description says.
"""
import json
import re
import socket
import sys


class Mismatch(Exception):
    """A value is not what the description says."""


class Fault(Exception):
    """The answer is an error."""

    def __init__(self, name, parameters):
        super().__init__(name)
        self.name, self.parameters = name, parameters


class Interface:
    """An interface description, read."""

    TOKEN = re.compile(r'\s+|#[^\n]*|(->|\[\]|\[string\]|[(),:?]|[A-Za-z][A-Za-z0-9_.-]*)')

    def __init__(self, text):
        self.text = text
        self.types, self.methods, self.errors = {}, {}, {}
        self.tokens = []
        at = 0
        while at < len(text):
            match = self.TOKEN.match(text, at)
            if not match:
                raise ValueError(f'line {text[:at].count(chr(10)) + 1}: {text[at:at + 20]!r}')
            at = match.end()
            if match.group(1):
                self.tokens.append(match.group(1))
        self.expect('interface')
        self.name = self.take()
        while self.tokens:
            self.member()

    def take(self):
        return self.tokens.pop(0)

    def expect(self, wanted):
        found = self.take()
        if found != wanted:
            raise ValueError(f'{wanted!r} is wanted, not {found!r}')

    def member(self):
        what, name = self.take(), self.take()
        if what == 'type':
            self.types[name] = self.struct()
        elif what == 'error':
            self.errors[name] = self.struct()
        elif what == 'method':
            given = self.struct()
            self.expect('->')
            self.methods[name] = (given, self.struct())
        else:
            raise ValueError(f'{what!r} is no member')

    def struct(self):
        self.expect('(')
        fields, words = {}, []
        while self.tokens[0] != ')':
            name = self.take()
            if self.tokens[0] == ':':
                self.take()
                fields[name] = self.type()
            else:
                words.append(name)
            if self.tokens[0] == ',':
                self.take()
        self.expect(')')
        return ('enum', words) if words else ('struct', fields)

    def type(self):
        token = self.tokens[0]
        if token == '?':
            self.take()
            return ('optional', self.type())
        if token == '[]':
            self.take()
            return ('array', self.type())
        if token == '[string]':
            self.take()
            return ('map', self.type())
        if token == '(':
            return self.struct()
        return ('name', self.take())

    PLAIN = {
        'bool': lambda v: isinstance(v, bool),
        'int': lambda v: isinstance(v, int) and not isinstance(v, bool),
        'float': lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
        'string': lambda v: isinstance(v, str),
        'object': lambda v: isinstance(v, dict),
    }

    def check(self, kind, value, where):
        """Raises Mismatch where value is not of that type."""
        what, inner = kind
        if what == 'optional':
            if value is not None:
                self.check(inner, value, where)
        elif what == 'name' and inner in self.PLAIN:
            if not self.PLAIN[inner](value):
                raise Mismatch(f'{where}: {value!r} is no {inner}')
        elif what == 'name':
            self.check(self.types[inner], value, where)
        elif what == 'enum':
            if value not in inner:
                raise Mismatch(f'{where}: {value!r} is none of {inner}')
        elif what == 'array':
            if not isinstance(value, list):
                raise Mismatch(f'{where}: no array')
            for index, element in enumerate(value):
                self.check(inner, element, f'{where}[{index}]')
        elif not isinstance(value, dict):
            raise Mismatch(f'{where}: no object')
        elif what == 'map':
            for key, element in value.items():
                self.check(inner, element, f'{where}[{key}]')
        else:
            for key in value:
                if key not in inner:
                    raise Mismatch(f'{where}: {key!r} is unknown')
            for key, field in inner.items():
                if key in value or field[0] != 'optional':
                    self.check(field, value.get(key), f'{where}.{key}')

    def from_text(self, kind, text):
        """The value that a person means by text."""
        while kind[0] == 'optional':
            kind = kind[1]
        if kind[0] == 'enum' or kind == ('name', 'string'):
            return text
        if kind[0] == 'name' and kind[1] in self.types:
            return self.from_text(self.types[kind[1]], text)
        return json.loads(text)

    def example(self, kind):
        """The least value of that type; optional fields are left out."""
        what, inner = kind
        if what == 'optional':
            return None
        if what == 'name' and inner in self.types:
            return self.example(self.types[inner])
        if what == 'name':
            return {'bool': False, 'int': 0, 'float': 0, 'string': 'x', 'object': {}}[inner]
        if what == 'enum':
            return inner[0]
        if what == 'array':
            return []
        if what == 'map':
            return {}
        return {key: self.example(field) for key, field in inner.items() if field[0] != 'optional'}


class Client:
    """A connection; calls are checked by the server's own descriptions."""

    def __init__(self, path, timeout=None):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.waiting = b''
        self.interfaces = {}

    def send(self, request):
        self.socket.sendall(json.dumps(request).encode() + b'\0')

    def receive(self):
        while b'\0' not in self.waiting:
            got = self.socket.recv(65536)
            if not got:
                raise ConnectionError('the server has hung up')
            self.waiting += got
        frame, self.waiting = self.waiting.split(b'\0', 1)
        return json.loads(frame)

    def raw(self, method, parameters, more=False):
        """Calls, and yields the answers' parameters as they are."""
        self.send({'method': method, 'parameters': parameters, **({'more': True} if more else {})})
        while True:
            answer = self.receive()
            if 'error' in answer:
                raise Fault(answer['error'], answer.get('parameters', {}))
            yield answer.get('parameters', {})
            if not answer.get('continues'):
                return

    def info(self):
        return next(self.raw('org.varlink.service.GetInfo', {}))

    def interface(self, name):
        if name not in self.interfaces:
            answer = next(self.raw('org.varlink.service.GetInterfaceDescription',
                                   {'interface': name}))
            self.interfaces[name] = Interface(answer['description'])
        return self.interfaces[name]

    def call(self, method, parameters=None, more=False):
        """The same, checked: what is sent and what comes is what the description says."""
        name, short = method.rsplit('.', 1)
        interface = self.interface(name)
        given, answered = interface.methods[short]
        parameters = parameters or {}
        interface.check(given, parameters, short)
        try:
            for answer in self.raw(method, parameters, more):
                interface.check(answered, answer, short)
                yield answer
        except Fault as fault:
            owner, _, error = fault.name.rpartition('.')
            self.interface(owner).check(self.interface(owner).errors[error], fault.parameters, error)
            raise


def examples(client, name, left_out):
    """A call of each method; errors are answers, too."""
    interface = client.interface(name)
    for method, (given, _) in interface.methods.items():
        if method in left_out:
            continue
        try:
            answer = next(client.call(f'{name}.{method}', interface.example(given)))
            print(method, json.dumps(answer))
        except Fault as fault:
            print(method, fault.name, json.dumps(fault.parameters))


def main(words):
    more, count, wants_examples, left_out = False, None, False, []
    while words and words[0].startswith('--'):
        word = words.pop(0)
        more = more or word == '--more'
        wants_examples = wants_examples or word == '--examples'
        if word.startswith('--count='):
            count = int(word.partition('=')[2])
        if word.startswith('--except='):
            left_out.append(word.partition('=')[2])
    if not words:
        print(__doc__, file=sys.stderr)
        return 2
    client = Client(words[0])
    if len(words) == 1:
        print(json.dumps(client.info()))
    elif wants_examples:
        examples(client, words[1], left_out)
    elif words[1] in client.info()['interfaces']:
        interface = client.interface(words[1])
        print(interface.text)
    else:
        name, _, method = words[1].rpartition('.')
        interface = client.interface(name)
        if method not in interface.methods:
            raise Mismatch(f'there is no method {words[1]}')
        fields = interface.methods[method][0][1]
        parameters = {}
        for word in words[2:]:
            key, _, text = word.partition('=')
            if key not in fields:
                raise Mismatch(f'there is no parameter {key!r}')
            parameters[key] = interface.from_text(fields[key], text)
        for answer in client.call(words[1], parameters, more):
            print(json.dumps(answer), flush=True)
            if count is not None:
                count -= 1
                if not count:
                    break
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except Fault as error:
        print(error.name, json.dumps(error.parameters), file=sys.stderr)
        sys.exit(1)
    except (Mismatch, ValueError, OSError) as error:
        print(f'varlink.py: {error}', file=sys.stderr)
        sys.exit(3)
