/* SPDX-License-Identifier: MIT */
/*
 * Fibers on ucontext(3): a flow reads as a sequence of steps and not as a chain of callbacks. Each
 * fiber has a stack of its own and runs on the loop's thread until it waits, so that state touched
 * between two waits needs no lock.
 *
 * A fiber never switches to another fiber, only to the loop: a nested run() would overwrite
 * `outside` and `current`. fiber_start() and fiber_raise() append to the queue of runnable fibers,
 * and the outermost run_all() runs them in order.
 *
 * uv keeps a timer until its close callback, so closed() frees a fiber that has one. The few kept
 * stacks save an mmap() for each of the many short flows. AddressSanitizer needs to know each
 * switch, since it checks accesses against the bounds of the current stack.
 *
 * Read fiber_start() and run_all() first, then fiber_wait() with timed_out(), then fiber_raise().
 */
#include "supervisor/fiber.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_BYTES (256u << 10) /* touched as it is used */
#define STACKS_KEPT 8u

struct fiber {
	ucontext_t context;
	void *stack; /* its lowest page is a guard page */
	void (*main)(void *context);
	void *argument;
	uv_timer_t timer;
	bool has_timer; /* uv uses it: close it before freeing this */
	struct fiber_event *waits_for;
	struct fiber *next; /* in the list of an event, or of runnable fibers */
	bool timed_out, ended;
#ifdef FIBER_ASAN
	void *fake_stack;
#endif
};

static uv_loop_t *loop;
static ucontext_t outside; /* the loop's own flow */
static struct fiber *current;
static struct fiber *runnable, **runnable_end = &runnable;
static void *stacks[STACKS_KEPT];
static unsigned nr_stacks, nr_fibers;
#ifdef FIBER_ASAN
static void *outside_fake_stack;
static const void *outside_bottom;
static size_t outside_size;
#endif

void fiber_setup(uv_loop_t *of)
{
	loop = of;
}

unsigned fiber_count(void)
{
	return nr_fibers;
}

static void *take_stack(void)
{
	char *stack;

	if (nr_stacks)
		return stacks[--nr_stacks];
	stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return NULL;
	if (mprotect(stack, (size_t)sysconf(_SC_PAGESIZE), PROT_NONE)) {
		munmap(stack, STACK_BYTES);
		return NULL;
	}
	return stack;
}

static void give_stack(void *stack)
{
	if (nr_stacks < STACKS_KEPT)
		stacks[nr_stacks++] = stack;
	else
		munmap(stack, STACK_BYTES);
}

static void closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void destroy(struct fiber *f)
{
	give_stack(f->stack);
	nr_fibers--;
	if (f->has_timer)
		uv_close((uv_handle_t *)&f->timer, closed);
	else
		free(f);
}

static void to_outside(struct fiber *f)
{
#ifdef FIBER_ASAN
	__sanitizer_start_switch_fiber(f->ended ? NULL : &f->fake_stack, outside_bottom,
				       outside_size);
#endif
	swapcontext(&f->context, &outside);
#ifdef FIBER_ASAN
	__sanitizer_finish_switch_fiber(f->fake_stack, &outside_bottom, &outside_size);
#endif
}

static void enter(void)
{
	struct fiber *f = current;

#ifdef FIBER_ASAN
	__sanitizer_finish_switch_fiber(NULL, &outside_bottom, &outside_size);
#endif
	f->main(f->argument);
	f->ended = true;
	to_outside(f);
}

static void run(struct fiber *f)
{
	current = f;
#ifdef FIBER_ASAN
	__sanitizer_start_switch_fiber(&outside_fake_stack, f->stack, STACK_BYTES);
#endif
	swapcontext(&outside, &f->context);
#ifdef FIBER_ASAN
	__sanitizer_finish_switch_fiber(outside_fake_stack, NULL, NULL);
#endif
	current = NULL;
	if (f->ended)
		destroy(f);
}

/* Runs all runnable fibers, unless a caller further up the stack already does. */
static void run_all(void)
{
	static bool running;
	struct fiber *f;

	if (running)
		return;
	running = true;
	while ((f = runnable)) {
		runnable = f->next;
		if (!runnable)
			runnable_end = &runnable;
		run(f);
	}
	running = false;
}

static void make_runnable(struct fiber *f)
{
	f->next = NULL;
	*runnable_end = f;
	runnable_end = &f->next;
}

int fiber_start(void (*main)(void *context), void *context)
{
	struct fiber *f = calloc(1, sizeof(*f));
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (!f)
		return -ENOMEM;
	f->stack = take_stack();
	if (!f->stack) {
		free(f);
		return -ENOMEM;
	}
	f->main = main;
	f->argument = context;
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = (char *)f->stack + page;
	f->context.uc_stack.ss_size = STACK_BYTES - page;
	makecontext(&f->context, enter, 0);
	nr_fibers++;
	make_runnable(f);
	run_all();
	return 0;
}

static void forget_wait(struct fiber *f)
{
	struct fiber **at = &f->waits_for->first;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	f->waits_for = NULL;
}

static void timed_out(uv_timer_t *timer)
{
	struct fiber *f = timer->data;

	/* The event was raised in the same round of the loop: the fiber is runnable already. */
	if (!f->waits_for)
		return;
	forget_wait(f);
	f->timed_out = true;
	make_runnable(f);
	run_all();
}

int fiber_wait(struct fiber_event *event, unsigned ms)
{
	struct fiber *f = current, **at = &event->first;

	assert(f);
	f->timed_out = false;
	f->waits_for = event;
	f->next = NULL;
	while (*at)
		at = &(*at)->next;
	*at = f;
	if (ms) {
		if (!f->has_timer) {
			uv_timer_init(loop, &f->timer);
			f->timer.data = f;
			f->has_timer = true;
		}
		uv_update_time(loop);
		uv_timer_start(&f->timer, timed_out, ms, 0);
	}
	to_outside(f);
	if (ms)
		uv_timer_stop(&f->timer);
	return f->timed_out ? -ETIMEDOUT : 0;
}

void fiber_sleep(unsigned ms)
{
	struct fiber_event never = { NULL };

	fiber_wait(&never, ms ? ms : 1);
}

void fiber_raise(struct fiber_event *event)
{
	struct fiber *f;

	while ((f = event->first)) {
		event->first = f->next;
		f->waits_for = NULL;
		make_runnable(f);
	}
	run_all();
}
