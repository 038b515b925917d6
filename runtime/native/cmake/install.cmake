# cmake --install: libsage for C programs, found by `find_package(sage)` (target sage::sage) and by `pkg-config sage`.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/sage)
install(TARGETS sage EXPORT sageTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${native}/include/sage.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT sageTargets NAMESPACE sage:: DESTINATION ${package})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/sageConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${native}/cmake/sageConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/sageConfigVersion.cmake DESTINATION ${package})

# From the folder of sage.pc to the prefix, so that the whole can be moved.
file(RELATIVE_PATH up ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" up "${up}")
configure_file(${native}/cmake/sage.pc.in ${CMAKE_CURRENT_BINARY_DIR}/sage.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/sage.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
