/* SPDX-License-Identifier: MIT */
/*
 * The interface descriptions beside this file, as the build puts them into the
 * programs: NAME.varlink is interface_NAME, each dot a '_'.
 */
#ifndef UBLKD_INTERFACES_H
#define UBLKD_INTERFACES_H

extern const char interface_io_ublkd[];
extern const char interface_org_varlink_service[];

#endif
