"""Runs generated Tcl in Python's own Tcl interpreter, with stubs in place of the vendors' commands.

A command or option that no stub knows is an error; so is a property that is not listed.
"""

import tkinter

IPX = "ipx::"
COMMANDS = {
    "create_project": {"-in_memory", "-part", "-force"}, "close_project": set(), "current_project": set(),
    "current_fileset": set(), "add_files": {"-norecurse"}, "update_compile_order": {"-fileset"},
    "project_new": {"-overwrite"}, "get_filesets": set(),
    "set_property": {"-dict"}, "get_files": set(), "update_ip_catalog": set(),
    f"{IPX}package_project": {"-root_dir", "-vendor", "-library", "-taxonomy", "-import_files", "-force"},
    f"{IPX}current_core": set(), f"{IPX}associate_bus_interfaces": {"-busif", "-clock", "-reset"},
    f"{IPX}remove_all_memory_map": set(), f"{IPX}add_memory_map": set(),
    f"{IPX}get_bus_interfaces": {"-of_objects"}, f"{IPX}add_address_block": set(),
    f"{IPX}add_register": set(), f"{IPX}get_registers": {"-of_objects"}, f"{IPX}add_field": set(),
    f"{IPX}create_xgui_files": set(), f"{IPX}update_checksums": set(), f"{IPX}check_integrity": set(),
    f"{IPX}save_core": set(), "package_xo": {"-force", "-xo_path", "-kernel_name", "-ip_directory",
                                             "-kernel_xml"},
    "ipgui::add_param": {"-name"}, "ipgui::add_page": {"-name"},
    "read_verilog": set(), "read_xdc": {"-mode"}, "synth_design": {"-top", "-part", "-mode",
                                                                       "-verilog_define"},
    "opt_design": set(), "place_design": set(), "phys_opt_design": set(), "route_design": set(),
    "write_checkpoint": {"-force"},
    "report_utilization": {"-hierarchical", "-hierarchical_depth", "-file"},
    "report_timing_summary": {"-file", "-max_paths"},
    "create_clock": {"-name", "-period"}, "get_ports": {"-nowarn"}, "get_collection_size": set(),
    "derive_clock_uncertainty": set(),
    "create_bd_design": set(), "create_bd_cell": {"-type", "-vlnv"}, "connect_bd_intf_net": set(),
    "connect_bd_net": set(), "get_bd_pins": set(), "get_bd_intf_pins": set(), "assign_bd_address": set(),
    "validate_bd_design": set(), "save_bd_design": set(), "make_wrapper": {"-files", "-top", "-import"},
    "set_module_property": set(), "add_fileset": set(), "set_fileset_property": set(),
    "add_fileset_file": set(), "add_interface": set(), "add_interface_port": set(),
    "set_interface_property": set(), "set_global_assignment": {"-name"},
}
"""Options of each command."""

PROPERTIES = {
    "top", "part", "include_dirs", "source_mgmt_mode",
    "name", "version", "display_name", "description", "slave_memory_map_ref", "base_address", "range",
    "width", "usage", "address_offset", "size", "access", "bit_offset", "bit_width", "sdx_kernel",
    "sdx_kernel_type", "ipi_drc", "ip_repo_paths",
    "CONFIG.NUM_SI", "CONFIG.NUM_MI", "CONFIG.PSU__USE__M_AXI_GP0", "CONFIG.PSU__USE__M_AXI_GP1",
    "CONFIG.PSU__USE__M_AXI_GP2", "CONFIG.PSU__USE__S_AXI_GP2", "CONFIG.PSU__USE__S_AXI_GP3",
    "CONFIG.PSU__USE__IRQ0", "CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ",
}
RESULTS = {
    "get_collection_size": lambda arguments: "1",
    "get_bd_pins": lambda arguments: arguments[0], "get_bd_intf_pins": lambda arguments: arguments[0],
    "create_bd_cell": lambda arguments: arguments[-1],
    f"{IPX}add_register": lambda arguments: arguments[0],
    f"{IPX}get_registers": lambda arguments: arguments[0],
    f"{IPX}add_field": lambda arguments: "/".join(reversed(arguments)),
}
"""What a command returns; its own name unless listed."""


def run_tcl(path, *, after="", argv=""):
    """Source a script, then run ``after``; returns the commands that it gave, as lists of words.

    ValueError names every unknown command, option and property.
    """
    tcl, calls, problems = tkinter.Tcl(), [], []

    def stub(command, *arguments):
        for word in arguments:
            if word.startswith("-") and word[1:2].isalpha() and word not in COMMANDS[command]:
                problems.append(f"{command} has no option {word}")
        if command == "set_property":
            names = (tcl.splitlist(arguments[1])[::2] if arguments[0] == "-dict" else arguments[:1])
            problems.extend(f"no property {name}" for name in names if name not in PROPERTIES)
        calls.append([command, *arguments])
        return RESULTS.get(command, lambda arguments: command)(arguments)

    tcl.eval("namespace eval ipx {}; namespace eval ipgui {}; package provide qsys 16.1")
    for command in COMMANDS:
        tcl.createcommand(command, lambda *arguments, command=command: stub(command, *arguments))
    tcl.setvar("argv", argv)
    tcl.setvar("quartus(qip_path)", str(path.parent))
    try:
        tcl.call("source", str(path))
        tcl.eval(after)
    except tkinter.TclError as error:
        problems.append(str(error))
    if problems:
        raise ValueError(f"{path.name}: {'; '.join(problems)}")
    return calls
