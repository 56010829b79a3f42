/* SPDX-License-Identifier: MIT */
/*
 * The description of ublkd's interface, io.ublkd.varlink, as the build puts it into the
 * programs.
 */
#ifndef UBLKD_INTERFACES_H
#define UBLKD_INTERFACES_H

extern const char interface_io_ublkd[];

#endif
