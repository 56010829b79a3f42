/* SPDX-License-Identifier: MIT */
/*
 * An NBD server that does as a test says: a thread for each connection, in the test's own
 * process, on the loopback.  It speaks the protocol's old style, whose handshake is one
 * message, or with structured replies the new style.
 */
#ifndef UBLKD_SCRIPTED_H
#define UBLKD_SCRIPTED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SCRIPTED_SIZE        (1u << 20)
#define SCRIPTED_CONNECTIONS 256
#define SCRIPTED_COMMANDS    8
/* NBD protocol: NBD_CMD_READ and on. */
enum {
	SCRIPTED_READ,
	SCRIPTED_WRITE,
	SCRIPTED_DISCONNECT,
	SCRIPTED_FLUSH,
	SCRIPTED_TRIM,
	SCRIPTED_ZERO = 6,
};

struct scripted;
struct served;

/* Connections that are made from now on are left to libnbd. */
extern atomic_bool scripted_without_wire;
/* Their wires are told that the kernel does TLS, on sockets that take little at a time. */
extern atomic_bool scripted_kernel_tls;
/* Of devices that are served from now on. */
extern const char *scripted_io_path;

/* An answer of a server with structured replies, as it is made. */
struct scripted_answer {
	const void *cookie; /* its 8 bytes */
	unsigned command;
	uint64_t offset;
	uint32_t length;
	uint8_t *bytes; /* what is sent */
	size_t size;
};

struct scripted_connection {
	struct scripted *server;
	pthread_t thread;
	int fd;
};

/* Owner: the test.  What is atomic may be read and set at any time. */
struct scripted {
	/* Accepts and never greets. */
	atomic_bool mute;
	/* Accepts and closes at once. */
	atomic_bool rejects;
	/* Greets a connection only when no other one is open. */
	atomic_bool single;
	/* The command that is not answered until this is another one; -1: none. */
	atomic_int hold;
	/* While it holds one, the connection serves no other. */
	atomic_bool serial;
	/* The next so many answers to a command are its error (NBD protocol, "Error values"). */
	atomic_uint fails[SCRIPTED_COMMANDS], error[SCRIPTED_COMMANDS];
	/* The next answer to a read ends the connection after so many bytes, less one; 0: none. */
	atomic_uint cut;
	/* The next answer to this command comes twice; -1: none. late: again before the next one. */
	atomic_int twice;
	atomic_bool late;
	/* Set before scripted_start(): its sockets take next to nothing. */
	bool narrow;
	/*
	 * Set before scripted_start(): it has structured replies. answer makes one, on the
	 * connection's thread; NULL: a read has one chunk, and all else a simple reply.
	 */
	bool structured;
	void (*_Atomic answer)(struct scripted_answer *a);
	/* So far: connections accepted, greeted, and ended after that; requests that have come. */
	atomic_uint accepted, greeted, ended, requests[SCRIPTED_COMMANDS];

	struct scripted_again {
		uint8_t bytes[64];
		size_t length; /* 0: none */
	} again;               /* what is late; of one connection at a time */
	uint16_t port;
	int listener;
	pthread_t thread;
	atomic_bool stop;
	atomic_uint open; /* greeted, and not closed */
	unsigned nr;
	struct scripted_connection connections[SCRIPTED_CONNECTIONS];
};

/* Listens at 127.0.0.N, at the port; 0: any.  Fails the test where it cannot. */
void scripted_start(struct scripted *s, unsigned n, uint16_t port);
/* Ends all its connections, as a crash would. */
void scripted_end(struct scripted *s);

/* Waits until *count, one of the server's, is at least that.  Fails the test after 30 s. */
void scripted_wait(const atomic_uint *count, unsigned least, const char *what);

/* Parts of an answer. `at`: from the read's offset; data is the export's content. */
void scripted_simple(struct scripted_answer *a, uint32_t error);
void scripted_chunk(struct scripted_answer *a, unsigned flags, unsigned type, const void *payload,
		    uint32_t length);
void scripted_data(struct scripted_answer *a, unsigned flags, uint32_t at, uint32_t length);
void scripted_hole(struct scripted_answer *a, unsigned flags, uint32_t at, uint32_t length);
void scripted_error(struct scripted_answer *a, unsigned flags, uint32_t error);
#define SCRIPTED_DONE 1u

/*
 * Starts the fake kernel and serves the server's export there: one queue of 16, 64 KiB an
 * I/O, and these options besides.
 */
void scripted_serve(const struct scripted *server, struct served *s, const char *options);

/* ---- requests to what scripted_serve() serves ---- */

/* Returns how it ended: 0 or -errno. */
int scripted_transfer(unsigned op, uint64_t at, uint32_t length, uint8_t *data);
/* Writes length bytes of this seed; and that they are read. */
void scripted_fill(uint64_t at, uint32_t length, unsigned seed);
void scripted_holds(uint64_t at, uint32_t length, unsigned seed);
/*
 * Writes SCRIPTED_READS ranges, and reads all of them at once: the server holds the reads until
 * it has them all.
 */
void scripted_reads_at_once(struct scripted *server, uint32_t length);
#define SCRIPTED_READS 15u /* of the 16 tags, 64 KiB apart */

#endif
