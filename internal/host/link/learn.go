package link

import (
	"encoding/binary"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// learnNoLinkLocal keeps the bridge from learning by frames to the standard's link-local groups, such as LLDP's. They come in
// past the hooks at which a guest is held to its own MAC, so one that sends another's would get what is for that one.
func learnNoLinkLocal(bridge netlink.Link) error {
	const noLinkLocalLearning = 1 << 0
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(bridge.Attrs().Index)
	option := binary.NativeEndian.AppendUint32(nil, noLinkLocalLearning)   // its value
	option = binary.NativeEndian.AppendUint32(option, noLinkLocalLearning) // what of it counts
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(unix.IFLA_BR_MULTI_BOOLOPT, option)
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	request.AddData(message)
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
