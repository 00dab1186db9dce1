/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the preload library passes calls on to: the function of that name of the next library (another preloaded one may stand before libc). Looked up
 * before main(), since dlsym() is not for signal handlers.
 *
 *	NEXT(close, int, (int fd))       defines next_close()
 */
#ifndef UMBRA_CLIENT_NEXT_H
#define UMBRA_CLIENT_NEXT_H

#include <dlfcn.h>

/* POSIX lets data and function pointers be converted for dlsym(). */
#define NEXT(name, type, args)                                                                           \
	static type(*_Atomic next_at_##name) args;                                                       \
	__attribute__((constructor(101))) static void next_find_##name(void)                             \
	{                                                                                                \
		type(*fn) args;                                                                          \
                                                                                                         \
		*(void **)&fn = dlsym(RTLD_NEXT, #name);                                                 \
		next_at_##name = fn;                                                                     \
	}                                                                                                \
	static inline __attribute__((always_inline)) __typeof__(next_at_##name + 0) next_of_##name(void) \
	{                                                                                                \
		if (__builtin_expect(!next_at_##name, 0)) /* a library that began before */              \
			next_find_##name();                                                              \
		return next_at_##name;                                                                   \
	}

#define exported __attribute__((visibility("default")))

#endif
