#pragma once
struct LinearKernels { int reserved; };
