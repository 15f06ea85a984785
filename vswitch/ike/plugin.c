// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin.h"

METHOD(plugin_t, get_name, char *, plugin_t *this)
{
	return "vswitch";
}

METHOD(plugin_t, get_features, int, plugin_t *this, plugin_feature_t *features[])
{
	static plugin_feature_t all[] = {
		PLUGIN_CALLBACK(kernel_ipsec_register, vswitch_ipsec_create),
			PLUGIN_PROVIDE(CUSTOM, "kernel-ipsec"),
		PLUGIN_CALLBACK(kernel_net_register, vswitch_net_create),
			PLUGIN_PROVIDE(CUSTOM, "kernel-net"),
		PLUGIN_CALLBACK(socket_register, vswitch_socket_create),
			PLUGIN_PROVIDE(CUSTOM, "socket"),
				PLUGIN_SDEPEND(CUSTOM, "kernel-ipsec"),
	};

	*features = all;
	return countof(all);
}

METHOD(plugin_t, destroy, void, plugin_t *this)
{
	free(this);
}

plugin_t *vswitch_plugin_create(void)
{
	plugin_t *this;

	INIT(this,
		.get_name = _get_name,
		.get_features = _get_features,
		.destroy = _destroy,
	);
	return this;
}
