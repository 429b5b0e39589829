// Stands in for an accelerator in the tests of the bench: copies weights_beats beats from input to
// output memory, 16 at a time, and reads as many beats of the weight stream. The length of the program chooses which AXI4
// rule it breaks: 1 none.
module accelerator (
    input ap_clk, input ap_rst_n, output interrupt,
    output m_axi_gmem0_arid, output m_axi_gmem0_awid, output m_axi_gmem1_arid,
    input m_axi_gmem0_rid, input m_axi_gmem0_bid, input m_axi_gmem1_rid,
    input [15:0] s_axi_control_awaddr, input s_axi_control_awvalid, output s_axi_control_awready,
    input [31:0] s_axi_control_wdata, input [3:0] s_axi_control_wstrb,
    input s_axi_control_wvalid, output s_axi_control_wready,
    output [1:0] s_axi_control_bresp, output reg s_axi_control_bvalid, input s_axi_control_bready,
    input [15:0] s_axi_control_araddr, input s_axi_control_arvalid, output s_axi_control_arready,
    output reg [31:0] s_axi_control_rdata, output [1:0] s_axi_control_rresp,
    output reg s_axi_control_rvalid, input s_axi_control_rready,
    output [63:0] m_axi_gmem0_araddr, output [7:0] m_axi_gmem0_arlen, output [2:0] m_axi_gmem0_arsize,
    output [1:0] m_axi_gmem0_arburst, output reg m_axi_gmem0_arvalid, input m_axi_gmem0_arready,
    input [31:0] m_axi_gmem0_rdata, input [1:0] m_axi_gmem0_rresp, input m_axi_gmem0_rlast,
    input m_axi_gmem0_rvalid, output m_axi_gmem0_rready,
    output [63:0] m_axi_gmem0_awaddr, output [7:0] m_axi_gmem0_awlen, output [2:0] m_axi_gmem0_awsize,
    output [1:0] m_axi_gmem0_awburst, output reg m_axi_gmem0_awvalid, input m_axi_gmem0_awready,
    output [31:0] m_axi_gmem0_wdata, output [3:0] m_axi_gmem0_wstrb, output m_axi_gmem0_wlast,
    output m_axi_gmem0_wvalid, input m_axi_gmem0_wready,
    input [1:0] m_axi_gmem0_bresp, input m_axi_gmem0_bvalid, output m_axi_gmem0_bready,
    output [63:0] m_axi_gmem1_araddr, output [7:0] m_axi_gmem1_arlen, output [2:0] m_axi_gmem1_arsize,
    output [1:0] m_axi_gmem1_arburst, output reg m_axi_gmem1_arvalid, input m_axi_gmem1_arready,
    input [31:0] m_axi_gmem1_rdata, input [1:0] m_axi_gmem1_rresp, input m_axi_gmem1_rlast,
    input m_axi_gmem1_rvalid, output m_axi_gmem1_rready
);
    localparam BURST = 16;

    // Registers: one word each, plus what the run itself reports.
    reg [31:0] file [0:63];
    wire [31:0] fault = file[16] - 1;
    reg start, done, running, toggled;
    reg [31:0] status, cycles;
    reg have_address, have_data;
    reg [15:0] write_address;
    reg [31:0] write_data;
    wire [31:0] activity = running;
    assign s_axi_control_awready = !have_address;
    assign s_axi_control_wready = !have_data;
    assign s_axi_control_arready = !s_axi_control_rvalid;
    assign {m_axi_gmem0_arid, m_axi_gmem0_awid, m_axi_gmem1_arid} = 0;
    assign s_axi_control_bresp = 0;
    assign s_axi_control_rresp = 0;
    assign interrupt = toggled && file[1][0] && file[2][0] && fault != 8;
    wire commit = have_address && have_data && !s_axi_control_bvalid;

    // One beat of input at a time goes out again; the weight stream is read and dropped.
    reg [31:0] asked, moved, weights_asked, weights_moved, answered, bursts;
    reg [31:0] buffer [0:BURST - 1];
    reg [4:0] filled, sent;
    reg address_done;
    wire [31:0] beats = file[18];
    wire last_weight = weights_moved == beats;
    assign m_axi_gmem0_araddr = {file[11], file[10]} + 4 * asked + (fault == 1 ? 4096 - 8 : 0)
                              + (fault == 2 && m_axi_gmem0_arvalid ? 64 * cycles : 0)
                              + (fault == 3 ? 4096 * 1024 : 0);
    assign m_axi_gmem0_arlen = BURST - 1;
    assign m_axi_gmem0_arsize = fault == 4 ? 3 : 2;
    assign m_axi_gmem0_arburst = fault == 5 ? 0 : 1;
    assign m_axi_gmem0_rready = filled < BURST;
    assign m_axi_gmem0_awaddr = {file[14], file[13]} + 4 * moved;
    assign m_axi_gmem0_awlen = BURST - 1;
    assign m_axi_gmem0_awsize = 2;
    assign m_axi_gmem0_awburst = 1;
    assign m_axi_gmem0_wdata = buffer[sent[3:0]] ^ (fault == 6 && !m_axi_gmem0_wready ? cycles : 0);
    assign m_axi_gmem0_wstrb = 15;
    assign m_axi_gmem0_wlast = sent == (fault == 7 ? BURST - 2 : BURST - 1);
    assign m_axi_gmem0_wvalid = filled == BURST && sent < BURST;
    assign m_axi_gmem0_bready = 1;
    assign m_axi_gmem1_araddr = {file[8], file[7]} + 4 * weights_asked;
    assign m_axi_gmem1_arlen = BURST - 1;
    assign m_axi_gmem1_arsize = 2;
    assign m_axi_gmem1_arburst = 1;
    assign m_axi_gmem1_rready = 1;

    always @(posedge ap_clk) begin
        if (s_axi_control_awvalid && s_axi_control_awready) begin
            have_address <= 1;
            write_address <= s_axi_control_awaddr;
        end
        if (s_axi_control_wvalid && s_axi_control_wready) begin
            have_data <= 1;
            write_data <= s_axi_control_wdata;
        end
        if (s_axi_control_bvalid && s_axi_control_bready) s_axi_control_bvalid <= 0;
        if (commit) begin
            have_address <= 0;
            have_data <= 0;
            s_axi_control_bvalid <= 1;
            if (write_address == 0) start <= write_data[0];
            else if (write_address == 16'h0C) toggled <= toggled ^ write_data[0];
            else file[write_address[7:2]] <= write_data;
        end
        if (s_axi_control_rvalid && s_axi_control_rready) s_axi_control_rvalid <= 0;
        if (s_axi_control_arvalid && s_axi_control_arready) begin
            s_axi_control_rvalid <= 1;
            case (s_axi_control_araddr)
                16'h0000: begin
                    s_axi_control_rdata <= {29'd0, !running, done, start};
                    done <= 0;
                end
                16'h000C: s_axi_control_rdata <= toggled;
                16'h0080: s_axi_control_rdata <= 32'h4E475748;
                16'h008C: s_axi_control_rdata <= status;
                16'h00C0: s_axi_control_rdata <= cycles;
                16'h4000: s_axi_control_rdata <= 7;
                default: s_axi_control_rdata <= file[s_axi_control_araddr[7:2]];
            endcase
        end

        if (start && !running) begin
            start <= 0;
            running <= 1;
            status <= 1;
            cycles <= 0;
            {asked, moved, weights_asked, weights_moved, answered, bursts} <= 0;
            {filled, sent, address_done} <= 0;
        end
        if (running) begin
            cycles <= cycles + 1;
            if (m_axi_gmem0_arvalid && m_axi_gmem0_arready) begin
                m_axi_gmem0_arvalid <= 0;
                asked <= asked + BURST;
            end else if (asked < beats && asked == moved) m_axi_gmem0_arvalid <= 1;
            if (m_axi_gmem0_rvalid && m_axi_gmem0_rready) begin
                buffer[filled[3:0]] <= m_axi_gmem0_rdata;
                filled <= filled + 1;
                if (m_axi_gmem0_rresp != 0) status <= 4;
            end
            if (filled == BURST && !address_done && !m_axi_gmem0_awvalid) m_axi_gmem0_awvalid <= 1;
            if (m_axi_gmem0_awvalid && m_axi_gmem0_awready) begin
                m_axi_gmem0_awvalid <= 0;
                address_done <= 1;
            end
            if (m_axi_gmem0_wvalid && m_axi_gmem0_wready) sent <= sent + 1;
            if (address_done && sent == BURST) begin
                {filled, sent, address_done} <= 0;
                moved <= moved + BURST;
                bursts <= bursts + 1;
            end
            if (m_axi_gmem0_bvalid) begin
                answered <= answered + 1;
                if (m_axi_gmem0_bresp != 0) status <= 5;
            end
            if (m_axi_gmem1_arvalid && m_axi_gmem1_arready) begin
                m_axi_gmem1_arvalid <= 0;
                weights_asked <= weights_asked + BURST;
            end else if (weights_asked < beats && weights_asked == weights_moved) m_axi_gmem1_arvalid <= 1;
            if (m_axi_gmem1_rvalid) weights_moved <= weights_moved + 1;
            if (moved == beats && last_weight && answered == bursts) begin
                running <= 0;
                done <= 1;
                toggled <= 1;
                if (status == 1) status <= 0;
            end
        end
        if (!ap_rst_n) begin
            {start, done, running, toggled, have_address, have_data} <= 0;
            {s_axi_control_bvalid, s_axi_control_rvalid} <= 0;
            {m_axi_gmem0_arvalid, m_axi_gmem0_awvalid, m_axi_gmem1_arvalid} <= 0;
            {filled, sent, address_done, asked, moved} <= 0;
            status <= 0;
        end
    end
endmodule
